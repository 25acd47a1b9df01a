package web

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// ui is a web UI that runs, before an API which says what it was asked.
type ui struct {
	*Server
	t    *testing.T
	now  time.Time
	base string
}

func open(t *testing.T) (*ui, string) {
	t.Helper()
	u := &ui{t: t, now: time.Now()}
	u.Server = &Server{
		API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "the API at "+r.URL.Path)
		}),
		Files: fstest.MapFS{"index.html": {Data: []byte("the page")}, "app.js": {Data: []byte("the program")}},
		Log:   slog.New(slog.DiscardHandler),
		Now:   func() time.Time { return u.now },
	}
	t.Cleanup(func() { u.Close(context.Background()) })
	return u, u.token()
}

// token opens the UI, and returns the token of the address.
func (u *ui) token() string {
	u.t.Helper()
	o, err := u.Open()
	if err != nil {
		u.t.Fatal(err)
	}
	at, err := url.Parse(o.URL)
	if err != nil || !strings.HasPrefix(at.Fragment, "token=") {
		u.t.Fatalf("the address is %s, %v", o.URL, err)
	}
	u.base = "http://" + at.Host
	return strings.TrimPrefix(at.Fragment, "token=")
}

// ask sends a request, and returns its status and body. header has elements NAME: VALUE.
func (u *ui) ask(method, path, body string, header ...string) (int, string, http.Header) {
	u.t.Helper()
	r, err := http.NewRequest(method, u.base+path, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		u.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header
}

func (u *ui) login(token string) (bearer, id string) {
	u.t.Helper()
	code, body, _ := u.ask("POST", "/ui/login", `{"token":"`+token+`"}`)
	var got map[string]string
	if code != 200 || json.Unmarshal([]byte(body), &got) != nil {
		u.t.Fatalf("login answers %d %s", code, body)
	}
	return "Authorization: Bearer " + got["bearer"], got["id"]
}

// TestATokenWorksOnceAndForAMinute checks what becomes of the address that is printed.
func TestATokenWorksOnceAndForAMinute(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	if code, body, _ := u.ask("GET", "/v1/vms", "", bearer); code != 200 || body != "the API at /v1/vms" {
		t.Errorf("the API answers %d %s", code, body)
	}
	if code, _, _ := u.ask("POST", "/ui/login", `{"token":"`+token+`"}`); code != 403 {
		t.Errorf("the token works again: %d", code)
	}
	late := u.token()
	u.now = u.now.Add(TokenTime + time.Second)
	if code, _, _ := u.ask("POST", "/ui/login", `{"token":"`+late+`"}`); code != 403 {
		t.Errorf("the token works late: %d", code)
	}
	if code, _, _ := u.ask("POST", "/ui/login", `{"token":""}`); code != 403 {
		t.Errorf("no token works: %d", code)
	}
}

// TestForeignPagesGetNothing checks requests that no page of ours makes, with a session that they must not use.
func TestForeignPagesGetNothing(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	port := u.base[strings.LastIndex(u.base, ":"):]
	for name, header := range map[string][]string{
		"a name that leads here":            {bearer, "Host: evil.example" + port},
		"our address without its port":      {bearer, "Host: 127.0.0.1"},
		"a page of another port":            {bearer, "Origin: http://127.0.0.1:1"},
		"a page of another host":            {bearer, "Origin: https://evil.example"},
		"a page without an origin":          {bearer, "Origin: null"},
		"a page that hides where it is":     {bearer, "Sec-Fetch-Site: cross-site"},
		"a page of another port, same site": {bearer, "Sec-Fetch-Site: same-site"},
		"another program without a session": {},
		"a guessed session":                 {"Authorization: Bearer 00"},
		"a session as a cookie":             {"Cookie: " + strings.Replace(bearer, ": ", "=", 1)},
	} {
		if code, body, _ := u.ask("GET", "/v1/vms", "", header...); code != 403 || strings.Contains(body, "the API") {
			t.Errorf("%s gets %d %s", name, code, body)
		}
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		if code, _, _ := u.ask("GET", "/v1/vms", "", bearer, "Host: "+host+port, "Origin: http://"+host+port,
			"Sec-Fetch-Site: same-origin"); code != 200 {
			t.Errorf("our page at %s gets %d", host, code)
		}
	}
}

// TestATicketIsForOneRequest checks that a ticket works once, soon, and for its method and path alone.
func TestATicketIsForOneRequest(t *testing.T) {
	u, token := open(t)
	bearer, id := u.login(token)
	ticket := func() string {
		code, body, _ := u.ask("POST", "/ui/tickets", `{"method":"GET","path":"/v1/events"}`, bearer)
		var got map[string]string
		if code != 200 || json.Unmarshal([]byte(body), &got) != nil {
			t.Fatalf("a ticket is answered by %d %s", code, body)
		}
		return "?ticket=" + got["ticket"]
	}
	one := ticket()
	if code, _, _ := u.ask("GET", "/v1/events"+one, ""); code != 200 {
		t.Errorf("a ticket gets %d", code)
	}
	for name, ask := range map[string]func() int{
		"again":          func() int { code, _, _ := u.ask("GET", "/v1/events"+one, ""); return code },
		"another path":   func() int { code, _, _ := u.ask("GET", "/v1/vms"+ticket(), ""); return code },
		"another method": func() int { code, _, _ := u.ask("POST", "/v1/events"+ticket(), ""); return code },
		"late": func() int {
			late := ticket()
			u.now = u.now.Add(TicketTime + time.Second)
			code, _, _ := u.ask("GET", "/v1/events"+late, "")
			return code
		},
		"of a session that has ended": func() int {
			last := ticket()
			u.ask("DELETE", "/ui/sessions/"+id, "", bearer)
			code, _, _ := u.ask("GET", "/v1/events"+last, "")
			bearer, id = u.login(u.token())
			return code
		},
	} {
		if code := ask(); code != 403 {
			t.Errorf("%s: %d", name, code)
		}
	}
	if code, _, _ := u.ask("POST", "/ui/tickets", `{"method":"GET","path":"/etc"}`, bearer); code != 400 {
		t.Errorf("a ticket for no path of the API: %d", code)
	}
}

// TestSessionsAreListedAndRevoked checks that a user sees the browsers, and can end one.
func TestSessionsAreListedAndRevoked(t *testing.T) {
	u, token := open(t)
	mine, _ := u.login(token)
	other, id := u.login(u.token())
	_, body, _ := u.ask("GET", "/ui/sessions", "", mine)
	var list []Session
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 2 || list[0].Browser == "" {
		t.Fatalf("the sessions are %s, %v", body, err)
	}
	if strings.Contains(body, strings.TrimPrefix(mine, "Authorization: Bearer ")) {
		t.Error("the list has the secret of a session")
	}
	if code, _, _ := u.ask("DELETE", "/ui/sessions/"+id, "", mine); code != 204 {
		t.Errorf("revoking answers %d", code)
	}
	if code, _, _ := u.ask("GET", "/v1/vms", "", other); code != 403 {
		t.Errorf("a revoked session gets %d", code)
	}
}

// TestThePageIsAlone checks the headers of all kinds of answers, and which paths get the page.
func TestThePageIsAlone(t *testing.T) {
	u, _ := open(t)
	for path, want := range map[string]string{"/": "the page", "/app.js": "the program", "/vms/web": "the page",
		"/none.js": "404 page not found\n", "/../etc/passwd": "the page"} {
		_, body, h := u.ask("GET", path, "")
		if body != want {
			t.Errorf("%s is %q", path, body)
		}
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("the policy of %s is %q", path, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || h.Get("Cache-Control") != "no-store" ||
			h.Get("Cross-Origin-Opener-Policy") != "same-origin" || h.Get("Set-Cookie") != "" {
			t.Errorf("the headers of %s are %v", path, h)
		}
	}
}

// TestTheListenerCloses checks that nobody can connect when no session has asked for anything for an hour.
func TestTheListenerCloses(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	u.now = u.now.Add(IdleTime - time.Minute)
	u.Tidy(t.Context())
	if code, _, _ := u.ask("GET", "/v1/vms", "", bearer); code != 200 {
		t.Errorf("within the hour: %d", code)
	}
	u.now = u.now.Add(IdleTime + time.Minute)
	u.Tidy(t.Context())
	if _, err := http.Get(u.base); err == nil {
		t.Error("it answers after an hour")
	}
	again, _ := u.login(u.token())
	if code, _, _ := u.ask("GET", "/v1/vms", "", again); code != 200 {
		t.Errorf("opened again: %d", code)
	}
	if code, _, _ := u.ask("GET", "/v1/vms", "", bearer); code != 403 {
		t.Errorf("a session of before: %d", code)
	}
}
