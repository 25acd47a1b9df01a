package registry

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"banger"
	"banger/internal/testing/registrytest"
)

func auths(at, user, password string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, at, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

// credentialPlaces are the places where a user's name and password may be stored for a registry
// that requires them.
var credentialPlaces = map[string]struct {
	note func(h *host, s *registrytest.Server)
	ok   bool
}{
	"nowhere": {func(*host, *registrytest.Server) {}, false},
	"docker login": {func(h *host, s *registrytest.Server) {
		h.write("home/.docker/config.json", auths(s.Addr(), "me", "secret"))
	}, true},
	"docker login, as https": {func(h *host, s *registrytest.Server) {
		h.write("home/.docker/config.json", auths("https://"+s.Addr()+"/v2/", "me", "secret"))
	}, true},
	"DOCKER_CONFIG": {func(h *host, s *registrytest.Server) {
		h.env["DOCKER_CONFIG"] = filepath.Dir(h.write("conf/config.json", auths(s.Addr(), "me", "secret")))
	}, true},
	"podman login": {func(h *host, s *registrytest.Server) {
		h.env["XDG_RUNTIME_DIR"] = h.dir
		h.write("containers/auth.json", auths(s.Addr(), "me", "secret"))
	}, true},
	"REGISTRY_AUTH_FILE before the others": {func(h *host, s *registrytest.Server) {
		h.write("home/.docker/config.json", auths(s.Addr(), "me", "wrong"))
		h.env["REGISTRY_AUTH_FILE"] = h.write("auth.json", auths(s.Addr(), "me", "secret"))
	}, true},
	"the path before the host": {func(h *host, s *registrytest.Server) {
		both := strings.TrimSuffix(auths(s.Addr(), "me", "wrong"), "}}") + "," +
			strings.TrimPrefix(auths(s.Addr()+"/team", "me", "secret"), `{"auths":{`)
		h.env["REGISTRY_AUTH_FILE"] = h.write("auth.json", both)
	}, true},
	"another path": {func(h *host, s *registrytest.Server) {
		h.env["REGISTRY_AUTH_FILE"] = h.write("auth.json", auths(s.Addr()+"/tea", "me", "secret"))
	}, false},
	"a wrong password": {func(h *host, s *registrytest.Server) {
		h.write("home/.docker/config.json", auths(s.Addr(), "me", "wrong"))
	}, false},
	"a credential helper": {func(h *host, s *registrytest.Server) {
		h.write("bin/docker-credential-test",
			"#!/bin/sh\nread host\necho '{\"ServerURL\":\"'$host'\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n")
		h.t.Setenv("PATH", filepath.Join(h.dir, "bin")+":/usr/bin:/bin")
		h.write("home/.docker/config.json", fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, s.Addr()))
	}, true},
	"a helper that has nothing": {func(h *host, s *registrytest.Server) {
		h.write("bin/docker-credential-none", "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
		h.t.Setenv("PATH", filepath.Join(h.dir, "bin")+":/usr/bin:/bin")
		h.write("home/.docker/config.json", `{"credsStore":"none"}`)
	}, false},
}

func TestCredentials(t *testing.T) {
	for name, c := range credentialPlaces {
		for kind, require := range map[string]func(*registrytest.Server){
			"basic":  func(s *registrytest.Server) { s.RequireBasic("me", "secret") },
			"bearer": func(s *registrytest.Server) { s.RequireBearer("me", "secret", 100) },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				s, h := start(t), newHost(t)
				s.AddImage("team/app", "v1", layer("x"))
				require(s)
				c.note(h, s)
				_, err := h.client(s.Ref("team/app", "v1")).Manifest(bg, s.Ref("team/app", "v1"))
				if c.ok && err != nil {
					t.Error(err)
				}
				if !c.ok {
					wantCode(t, err, banger.CodeDenied, "refuses access")
				}
			})
		}
	}
}

// TestALoginCountsAtOnce checks that a login after the first attempt takes effect for the next one.
func TestALoginCountsAtOnce(t *testing.T) {
	s, h := start(t), newHost(t)
	s.AddImage("a", "v1", layer("x"))
	s.RequireBasic("me", "secret")
	_, err := h.client(s.Ref("a", "v1")).Manifest(bg, s.Ref("a", "v1"))
	wantCode(t, err, banger.CodeDenied, "refuses access")
	h.write("home/.docker/config.json", auths(s.Addr(), "me", "secret"))
	if _, err := h.client(s.Ref("a", "v1")).Manifest(bg, s.Ref("a", "v1")); err != nil {
		t.Error(err)
	}
}

func TestATokenThatExpiresIsRenewed(t *testing.T) {
	s, h := start(t), newHost(t)
	s.AddImage("a", "v1", layer("x"))
	h.write("home/.docker/config.json", auths(s.Addr(), "me", "secret"))
	s.RequireBearer("me", "secret", 2)
	c := h.client(s.Ref("a", "v1"))
	for range 7 {
		if _, err := c.Manifest(bg, s.Ref("a", "v1")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoWayToOurOwnServices checks that a registry on the Internet cannot direct us to services of
// this host or its cloud. The registry is behind a proxy, since all of this test is on loopback.
func TestNoWayToOurOwnServices(t *testing.T) {
	var reached atomic.Int64
	own := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer own.Close()
	port := own.URL[strings.LastIndexByte(own.URL, ':'):]
	for name, to := range map[string]string{
		"metadata":               "http://169.254.169.254",
		"metadata of another":    "http://100.100.100.200",
		"IPv6":                   "http://[fd00:ec2::254]",
		"loopback":               own.URL,
		"loopback by name":       "http://localhost" + port,
		"loopback, mapped":       "http://[::ffff:127.0.0.1]" + port,
		"link-local":             "http://[fe80::1]",
		"any address, unbounded": "http://0.0.0.0" + port,
	} {
		for kind, send := range map[string]func(s *registrytest.Server){
			"redirect": func(s *registrytest.Server) { s.Redirect(registrytest.Blob, to) },
			"realm":    func(s *registrytest.Server) { s.RequireBearer("me", "secret", 9); s.SetRealm(to + "/token") },
		} {
			t.Run(kind+" to "+name, func(t *testing.T) {
				s, h := start(t), newHost(t)
				send(s)
				proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Hostname() != "registry.test" {
						t.Errorf("the proxy is asked for %s", r.URL)
					}
					s.ServeHTTP(w, r)
				}))
				defer proxy.Close()
				h.env["HTTP_PROXY"] = proxy.URL
				h.write("etc/containers/registries.conf", "[[registry]]\nlocation = \"registry.test\"\ninsecure = true\n")
				_, err := h.client().Blob(bg, "registry.test/a:v1", s.AddBlob([]byte("x")), 0)
				wantCode(t, err, banger.CodeUnavailable, "address")
				if !isPermanent(err) {
					t.Errorf("it would be tried again: %v", err)
				}
			})
		}
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the host's own service was reached %d times", n)
	}
}

// TestARegistryOnLoopbackMayRedirectThere checks that a registry on loopback may redirect to
// loopback, as one with a storage service does. The password is sent only to the registry.
func TestARegistryOnLoopbackMayRedirectThere(t *testing.T) {
	s, storage, h := start(t), start(t), newHost(t)
	digest := storage.AddBlob([]byte("content"))
	h.write("home/.docker/config.json", auths(s.Addr(), "me", "secret"))
	s.RequireBasic("me", "secret")
	s.Redirect(registrytest.Blob, storage.URL())
	r, err := h.client(s.Ref("a", "v1")).Blob(bg, s.Ref("a", "v1"), digest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	for _, l := range storage.Log() {
		if strings.Contains(l, "Basic") || strings.Contains(l, "Bearer") {
			t.Errorf("the storage service got %q", l)
		}
	}
}

func TestRedirectsInACircleEnd(t *testing.T) {
	s := start(t)
	s.Redirect(registrytest.Manifest, s.URL())
	_, err := newHost(t).client().Manifest(bg, s.Ref("a", "v1"))
	wantCode(t, err, banger.CodeUnavailable, "more than 10 redirects")
}

func TestCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		dir string
		ok  bool
	}{
		"unknown":                  {"", false},
		"docker's directory":       {"etc/docker/certs.d/", true},
		"podman's directory":       {"etc/containers/certs.d/", true},
		"podman's, of the user":    {"home/.config/containers/certs.d/", true},
		"that of another registry": {"etc/docker/certs.d/other", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := registrytest.StartTLS(), newHost(t)
			defer s.Close()
			s.AddImage("a", "v1", layer("x"))
			if c.dir != "" {
				h.write(c.dir+s.Addr()+"/ca.crt",
					string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate()})))
			}
			_, err := h.client().Manifest(bg, s.Ref("a", "v1"))
			if (err == nil) != c.ok || err != nil && banger.CodeOf(err) != banger.CodeUnavailable {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
