package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/private"
)

// ui is a web UI that runs, before an API which says what it was asked.
type ui struct {
	*Server
	t     *testing.T
	later atomic.Int64 // nanoseconds by which the clock is ahead
	base  string
}

func open(t *testing.T) (*ui, string) {
	t.Helper()
	u := &ui{t: t}
	u.Server = &Server{
		Socket: daemon(t),
		Files:  fstest.MapFS{"index.html": {Data: []byte("the page")}, "assets/app.js": {Data: []byte("the program")}},
		Local:  http.NotFoundHandler(),
		Log:    slog.New(slog.DiscardHandler),
		Now:    func() time.Time { return time.Now().Add(time.Duration(u.later.Load())) },
	}
	t.Cleanup(func() { u.Close(context.Background()) })
	return u, u.token()
}

// daemon is an API that says what it was asked, and returns the bytes of streams. It returns its socket.
func daemon(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "api.sock")
	ln, err := private.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "banger-exec" {
			if r.URL.Path == "/v1/long" {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			if r.URL.Path == "/v1/broken" {
				io.WriteString(w, "a part")
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Secret", r.Header.Get("Authorization")+r.Header.Get("Origin"))
			io.WriteString(w, "the API at "+r.URL.RequestURI())
			return
		}
		body, _ := io.ReadAll(r.Body)
		if r.URL.Query().Get("rows") == "0" {
			wire.WriteError(w, banger.Errorf(banger.CodeInvalid, "no rows"))
			return
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: banger-exec\r\n\r\n")
		fmt.Fprintf(conn, "%s %s %s;", r.Method, r.URL.RequestURI(), body)
		io.Copy(conn, io.LimitReader(buf, 5))
	}))
	srv.Listener.Close()
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	return socket
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
	u.later.Add(int64(TokenTime + time.Second))
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
		"a link into the API":               {bearer, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"},
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

// TestOnlyASessionGetsTheAPI: neither another program nor a cookie gets anything.
func TestOnlyASessionGetsTheAPI(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	for name, header := range map[string][]string{
		"another program":       {},
		"a guessed session":     {"Authorization: Bearer 00"},
		"a session as a cookie": {"Cookie: " + strings.Replace(bearer, ": ", "=", 1)},
	} {
		for _, path := range []string{"/v1/vms", "/ui/sessions", "/ui/local/presets", "/v1/vms?ticket=",
			"/v1/vms?ticket=00"} {
			if code, body, _ := u.ask("GET", path, "", header...); code != 401 || strings.Contains(body, "the API") {
				t.Errorf("%s gets %d %s", name, code, body)
			}
		}
	}
	if code, _, _ := u.ask("POST", "/v1/ui", "", bearer); code != 404 {
		t.Errorf("a browser opens the UI: %d", code)
	}
}

// TestALinkLeadsToThePage: another page may have a link to ours, and a file of the user's leads there.
func TestALinkLeadsToThePage(t *testing.T) {
	u, _ := open(t)
	link := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"}
	if code, body, _ := u.ask("GET", "/vms/web", "", link...); code != 200 || body != "the page" {
		t.Errorf("a link gets %d %s", code, body)
	}
	if code, _, _ := u.ask("GET", "/", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"); code != 403 {
		t.Errorf("a part of a foreign page gets %d", code)
	}
}

// TestTheDaemonLearnsNothingOfTheBrowser checks what is passed on, and that an answer is no page.
func TestTheDaemonLearnsNothingOfTheBrowser(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	_, body, h := u.ask("GET", "/v1/vms?all=true&ticket=00", "", bearer, "Origin: "+u.base)
	if body != "the API at /v1/vms?all=true" || h.Get("Secret") != "" {
		t.Errorf("the daemon was asked %q with %q", body, h.Get("Secret"))
	}
	if policy := h.Get("Content-Security-Policy"); !strings.Contains(policy, "sandbox") {
		t.Errorf("the policy of an answer is %q", policy)
	}
	u.Socket += "-none"
	silent := &ui{t: t, Server: &Server{Socket: u.Socket, Files: u.Files, Log: u.Log}}
	t.Cleanup(func() { silent.Close(context.Background()) })
	other, _ := silent.login(silent.token())
	code, body, _ := silent.ask("GET", "/v1/vms", "", other)
	if code != 503 || !strings.Contains(body, "does not answer") {
		t.Errorf("without a daemon: %d %s", code, body)
	}
}

// socket opens a WebSocket with a ticket, and sends its first message.
func (u *ui) socket(bearer, path, first string) *websocket.Conn {
	u.t.Helper()
	name, _, _ := strings.Cut(path, "?")
	_, body, _ := u.ask("POST", "/ui/tickets", `{"method":"GET","path":"`+name+`"}`, bearer)
	var got map[string]string
	json.Unmarshal([]byte(body), &got)
	ws, _, err := websocket.Dial(u.t.Context(), u.base+path+"&ticket="+got["ticket"], nil)
	if err == nil {
		err = ws.Write(u.t.Context(), websocket.MessageText, []byte(first))
	}
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { ws.CloseNow() })
	return ws
}

// TestAWebSocketIsAStream sends the body of a request and then bytes, and gets those of the daemon.
func TestAWebSocketIsAStream(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	ws := u.socket(bearer, "/v1/vms/web/exec?rows=24", `{"upgrade":"banger-exec","body":{"cmd":["sh"]}}`)
	if err := ws.Write(t.Context(), websocket.MessageBinary, []byte("typed")); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(websocket.NetConn(t.Context(), ws, websocket.MessageBinary))
	if want := `POST /v1/vms/web/exec?rows=24 {"cmd":["sh"]};typed`; string(got) != want || err != nil {
		t.Errorf("the stream has %q, %v", got, err)
	}
}

// TestAWebSocketIsAnAnswer: without a protocol it has what a GET is answered, and tells an end from a break.
func TestAWebSocketIsAnAnswer(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	ws := u.socket(bearer, "/v1/vms?all=true", `{}`)
	if kind, said, err := ws.Read(t.Context()); kind != websocket.MessageText || string(said) != "{}" || err != nil {
		t.Fatalf("it begins with %v %s, %v", kind, said, err)
	}
	got, err := io.ReadAll(websocket.NetConn(t.Context(), ws, websocket.MessageBinary))
	if want := "the API at /v1/vms?all=true"; string(got) != want || err != nil {
		t.Errorf("the answer is %q, %v", got, err)
	}
	broken := u.socket(bearer, "/v1/broken?", `{}`)
	broken.Read(t.Context())
	if _, err := io.ReadAll(websocket.NetConn(t.Context(), broken, websocket.MessageBinary)); err == nil {
		t.Error("an answer that breaks off looks whole")
	}
}

// TestAStreamThatDoesNotBeginSaysWhy checks the one message that then comes.
func TestAStreamThatDoesNotBeginSaysWhy(t *testing.T) {
	u, token := open(t)
	bearer, _ := u.login(token)
	for first, want := range map[string]string{
		`{"upgrade":"banger-exec"}`: "no rows",
		`{"upgrade":"h2c"}`:         "does not say what",
		`no json`:                   "does not say what",
	} {
		ws := u.socket(bearer, "/v1/vms/web/attach?rows=0", first)
		kind, said, err := ws.Read(t.Context())
		if kind != websocket.MessageText || !strings.Contains(string(said), want) || err != nil {
			t.Errorf("%s is answered by %v %s, %v", first, kind, said, err)
		}
	}
}

// TestARevokedSessionIsCutOff: also what it has asked for before ends.
func TestARevokedSessionIsCutOff(t *testing.T) {
	u, token := open(t)
	bearer, id := u.login(token)
	r, err := http.NewRequest("GET", u.base+"/v1/long", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", strings.TrimPrefix(bearer, "Authorization: "))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	other, _ := u.login(u.token())
	u.later.Add(int64(2 * IdleTime))
	if !u.Tidy(t.Context()) {
		t.Fatal("the UI closes while a browser waits for an answer")
	}
	if code, _, _ := u.ask("DELETE", "/ui/sessions/"+id, "", other); code != 204 {
		t.Fatalf("revoking answers %d", code)
	}
	io.ReadAll(resp.Body) // ends
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
			u.later.Add(int64(TicketTime + time.Second))
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
		if code := ask(); code != 401 {
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
	if code, _, _ := u.ask("GET", "/v1/vms", "", other); code != 401 {
		t.Errorf("a revoked session gets %d", code)
	}
}

// TestThePageIsAlone checks the headers of all kinds of answers, and which paths get the page.
func TestThePageIsAlone(t *testing.T) {
	u, _ := open(t)
	for path, want := range map[string]string{"/": "the page", "/assets/app.js": "the program", "/vms/web": "the page",
		"/vms/a.b": "the page", "/assets/none.js": "404 page not found\n", "/../etc/passwd": "the page"} {
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
	u.later.Add(int64(IdleTime - time.Minute))
	u.Tidy(t.Context())
	if code, _, _ := u.ask("GET", "/v1/vms", "", bearer); code != 200 {
		t.Errorf("within the hour: %d", code)
	}
	u.later.Add(int64(IdleTime + time.Minute))
	u.Tidy(t.Context())
	if _, err := http.Get(u.base); err == nil {
		t.Error("it answers after an hour")
	}
	again, _ := u.login(u.token())
	if code, _, _ := u.ask("GET", "/v1/vms", "", again); code != 200 {
		t.Errorf("opened again: %d", code)
	}
	if code, _, _ := u.ask("GET", "/v1/vms", "", bearer); code != 401 {
		t.Errorf("a session of before: %d", code)
	}
}
