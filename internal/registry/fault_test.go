package registry

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/testing/registrytest"
)

// goWords are words that only Go's libraries use.
var goWords = regexp.MustCompile(
	`dial tcp|lookup |context |x509|tls:|EOF|i/o timeout|connect:|net/http|strconv|Get "|Head "|invalid character|unsupported`)

// silence returns the address of a server that takes connections and answers nothing, and how many it has taken.
func silence(t *testing.T) (addr string, connections func() int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var taken []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			taken = append(taken, c)
		}
	}()
	end := func() int {
		ln.Close()
		<-ended
		return len(taken)
	}
	t.Cleanup(func() {
		end()
		for _, c := range taken {
			c.Close()
		}
	})
	return ln.Addr().String(), end
}

// answers returns the address of a server that answers all requests with handle.
func answers(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// faults are registries that cannot be asked, what their errors say, and the advice.
var faults = map[string]struct {
	at      func(*testing.T, *host) string // HOST[:PORT]
	code    banger.Code
	message string // HOST stands for at
	hint    string
	silent  bool
}{
	"nobody listens": {func(*testing.T, *host) string { return "127.0.0.1:1" }, banger.CodeUnavailable,
		"registry HOST cannot be reached: nothing listens at HOST", "that the registry runs", false},
	"it is silent": {func(t *testing.T, _ *host) string { addr, _ := silence(t); return addr }, banger.CodeUnavailable,
		"registry HOST cannot be reached: HOST takes connections, but does not answer within 0.3 s", "try again later",
		true},
	"it begins and is silent": {func(t *testing.T, _ *host) string {
		return answers(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
	}, banger.CodeUnavailable, "cannot read a:v1 from registry HOST: HOST begins to answer and then is silent for 0.3 s",
		"try again later", true},
	"no such name": {func(t *testing.T, h *host) string { h.resolver = resolver(t, nil); return "registry.example" },
		banger.CodeUnavailable, "registry HOST cannot be reached: there is no host HOST", "spelling", false},
	"no route": {func(*testing.T, *host) string { return "9.9.9.9:5000" }, banger.CodeUnavailable,
		"registry HOST cannot be reached: no route leads to HOST", "network", false},
	"an unknown authority": {func(t *testing.T, _ *host) string {
		s := registrytest.StartTLS()
		t.Cleanup(s.Close)
		return s.Addr()
	}, banger.CodeUnavailable,
		"registry HOST cannot be reached: no authority that this host knows vouches for the certificate of HOST",
		"/etc/docker/certs.d/HOST/ca.crt", false},
	"it closes": {func(t *testing.T, _ *host) string {
		return answers(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	}, banger.CodeUnavailable, "registry HOST cannot be reached: HOST closes the connection without an answer",
		"try again later", false},
	"it refuses": {func(t *testing.T, _ *host) string { return answers(t, status(http.StatusForbidden)) },
		banger.CodeDenied, "registry HOST refuses access to a:v1", "check the name, or log in: banger login HOST", false},
	"it has no such image": {func(t *testing.T, _ *host) string {
		return answers(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				http.NotFound(w, r)
			}
		})
	}, banger.CodeNotFound, "registry HOST has no image a:v1", "may need a login: banger login HOST", false},
	"it is too busy": {func(t *testing.T, _ *host) string {
		return answers(t, status(http.StatusTooManyRequests, "Retry-After", "30"))
	}, banger.CodeUnavailable, "registry HOST takes no more requests for now",
		"try again in 30 s, or log in, for which many registries allow more: banger login HOST", false},
}

// TestFaultsInOurWords checks what errors say of registries that cannot be asked, that they say it soon, and that no
// word of a library is in them.
func TestFaultsInOurWords(t *testing.T) {
	for name, c := range faults {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			at := c.at(t, h)
			opts := h.options()
			opts.Silence = 300 * time.Millisecond
			client := New(opts, banger.RegistryAccess{})
			defer client.Close()
			began := time.Now()
			_, err := client.Manifest(bg, at+"/a:v1")
			took := time.Since(began)
			e, ok := errors.AsType[*banger.Error](err)
			if !ok || e.Code != c.code || !strings.HasPrefix(e.Message, strings.ReplaceAll(c.message, "HOST", at)) ||
				!strings.Contains(e.Hint, strings.ReplaceAll(c.hint, "HOST", at)) {
				t.Errorf("the error is %+v, %v", e, err)
			}
			if err != nil && goWords.MatchString(err.Error()) {
				t.Errorf("there are words of a library in %q", err)
			}
			if c.silent && took < opts.Silence {
				t.Errorf("it gives up after %v", took)
			}
			if took > 5*time.Second {
				t.Errorf("it takes %v", took)
			}
		})
	}
}

// TestASilentRegistryIsAskedOnce checks that one operation waits once for a host, however often it needs it.
func TestASilentRegistryIsAskedOnce(t *testing.T) {
	addr, connections := silence(t)
	opts := newHost(t).options()
	opts.Silence = 200 * time.Millisecond
	client := New(opts, banger.RegistryAccess{})
	defer client.Close()
	for i := range 5 {
		_, err := client.Digest(bg, fmt.Sprintf("%s/a:v%d", addr, i))
		wantCode(t, err, banger.CodeUnavailable, "does not answer within 0.2 s")
	}
	if n := connections(); n > 2 { // by https and by http
		t.Errorf("it is asked %d times", n)
	}
}

// TestABusyRegistryIsWaitedForALittle checks that a long pause that a registry asks for ends an operation.
func TestABusyRegistryIsWaitedForALittle(t *testing.T) {
	s, client := start(t), newHost(t).client()
	s.AddImage("a", "v1", layer("x"))
	s.FailNext(registrytest.Manifest, 100, 429, http.Header{"Retry-After": {"11"}})
	began := time.Now()
	_, err := client.Manifest(bg, s.Ref("a", "v1"))
	wantCode(t, err, banger.CodeUnavailable, "try again in 11 s")
	if n := s.Requests(registrytest.Manifest); n != 1 || time.Since(began) > 5*time.Second {
		t.Errorf("it is asked %d times in %v", n, time.Since(began))
	}
}

// TestFaultsOfProxies checks that errors name a proxy that is at fault, and the variable that names it.
func TestFaultsOfProxies(t *testing.T) {
	refusing := func(code int) func(*testing.T) string {
		return func(t *testing.T) string { return "http://" + answers(t, status(code)) }
	}
	for name, c := range map[string]struct {
		proxy func(*testing.T) string
		want  string
	}{
		"nobody listens": {func(*testing.T) string { return "http://127.0.0.1:1" },
			"nothing listens at the proxy 127.0.0.1:1: connection refused (HTTPS_PROXY of your environment names this proxy"},
		"it is silent": {func(t *testing.T) string { addr, _ := silence(t); return "http://" + addr },
			"does not answer within 0.3 s (HTTPS_PROXY of your environment names this proxy"},
		"it refuses": {refusing(http.StatusForbidden),
			"refuses to connect us to registry.example:443: it answers 403 Forbidden (ask whoever runs the proxy"},
		"it wants a login": {refusing(http.StatusProxyAuthRequired),
			"HTTPS_PROXY may have a login: http://USER:PASSWORD@127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.env["HTTPS_PROXY"] = c.proxy(t)
			access, err := h.access()
			if err != nil {
				t.Fatal(err)
			}
			opts := h.options()
			opts.Silence = 300 * time.Millisecond
			client := New(opts, access)
			defer client.Close()
			_, err = client.Manifest(bg, "registry.example/a:v1")
			wantCode(t, err, banger.CodeUnavailable, c.want)
			if goWords.MatchString(err.Error()) {
				t.Errorf("there are words of a library in %q", err)
			}
		})
	}
}

// TestABlobThatBreaksOff checks the error of a reader whose connection ends too early.
func TestABlobThatBreaksOff(t *testing.T) {
	s, client := start(t), newHost(t).client()
	digest := s.AddBlob([]byte(strings.Repeat("content ", 50_000)))
	s.Cut(100_000, 1)
	r, err := client.Blob(bg, s.Ref("a", "v1"), digest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	wantCode(t, err, banger.CodeUnavailable, s.Addr()+" breaks off the connection")
	if goWords.MatchString(err.Error()) || isPermanent(err) {
		t.Errorf("the error is %v, final: %v", err, isPermanent(err))
	}
}
