package registry

import (
	"net/http"
	"strings"
	"testing"

	"banger"
	"banger/internal/testing/registrytest"
)

// TestALoginIsTried checks what a registry says of a login, by both ways to log in.
func TestALoginIsTried(t *testing.T) {
	require := map[string]func(*registrytest.Server){
		"basic":  func(s *registrytest.Server) { s.RequireBasic("me", "secret") },
		"bearer": func(s *registrytest.Server) { s.RequireBearer("me", "secret", 9) },
	}
	for kind, require := range require {
		for password, code := range map[banger.Secret]banger.Code{"secret": "", "wrong": banger.CodeDenied} {
			t.Run(kind+", "+string(password), func(t *testing.T) {
				s := start(t)
				require(s)
				client := newHost(t).client()
				err := client.CheckLogin(bg, s.Addr(), banger.RegistryLogin{Username: "me", Password: password})
				if code == "" && err != nil {
					t.Error(err)
				}
				if code != "" {
					wantCode(t, err, code, "registry "+s.Addr()+" refuses this login (check user and password")
				}
			})
		}
	}
}

// TestALoginElsewhere checks the errors of hosts that are no registries.
func TestALoginElsewhere(t *testing.T) {
	login := banger.RegistryLogin{Username: "me", Password: "secret"}
	client := newHost(t).client()
	wantCode(t, client.CheckLogin(bg, "127.0.0.1:1", login), banger.CodeUnavailable, "nothing listens at 127.0.0.1:1")
	page := answers(t, http.NotFound)
	wantCode(t, client.CheckLogin(bg, page, login), banger.CodeUnavailable, page+" is no registry")
}

// TestALoginIsForItsPlace checks that a registry gets no login for another repository or registry.
func TestALoginIsForItsPlace(t *testing.T) {
	s := start(t)
	s.AddImage("a", "v1", layer("x"))
	s.RequireBasic("me", "secret")
	for place, ok := range map[string]bool{
		s.Addr() + "/a":       true,
		s.Addr() + "/b":       false,
		"registry.example/a":  false,
		s.Addr() + "/a/below": false,
	} {
		h := newHost(t)
		client := New(h.options(), banger.RegistryAccess{Logins: []banger.RegistryLogin{
			{Places: []string{place}, Username: "me", Password: "secret"}}})
		if _, err := client.Manifest(bg, s.Ref("a", "v1")); (err == nil) != ok {
			t.Errorf("with the login for %s: %v", place, err)
		}
		client.Close()
	}
}

// TestWhatAUserCallsARegistry checks the names that Host takes.
func TestWhatAUserCallsARegistry(t *testing.T) {
	for typed, want := range map[string]string{"docker.io": "index.docker.io", "localhost:5000": "localhost:5000"} {
		if got, err := Host(typed); got != want || err != nil {
			t.Errorf("%q is %q, %v", typed, got, err)
		}
	}
	for _, typed := range []string{"a b", "host:port", strings.Repeat("x", 5000) + "/"} {
		_, err := Host(typed)
		wantCode(t, err, banger.CodeInvalid, "write it as HOST or HOST:PORT")
	}
}
