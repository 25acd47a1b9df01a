package registry

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/testing/registrytest"
)

// proxyTo forwards every request to s, and records the hosts.
func proxyTo(t *testing.T, s *registrytest.Server) (url string, asked func() []string) {
	var mu sync.Mutex
	var hosts []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		hosts = append(hosts, r.URL.Host)
		mu.Unlock()
		if r.Method == http.MethodConnect {
			http.Error(w, "no tunnels", http.StatusForbidden)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(hosts)
	}
}

const insecureTest = "[[registry]]\nlocation = \"registry.test\"\ninsecure = true\n"

func TestProxies(t *testing.T) {
	for name, c := range map[string]struct {
		variable, value string // PROXY is its URL, ADDR its host:port
		noProxy         string
		used            bool
	}{
		"HTTP_PROXY":                {"HTTP_PROXY", "PROXY", "", true},
		"http_proxy":                {"http_proxy", "PROXY", "", true},
		"HTTP_PROXY without scheme": {"HTTP_PROXY", "ADDR", "", true},
		"NO_PROXY for another":      {"HTTP_PROXY", "PROXY", "other.test", true},
		"NO_PROXY":                  {"HTTP_PROXY", "PROXY", "registry.test", false},
		"NO_PROXY for the domain":   {"HTTP_PROXY", "PROXY", ".test", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := start(t), newHost(t)
			digest := s.AddImage("a", "v1", layer("x"))
			url, asked := proxyTo(t, s)
			h.env[c.variable] = strings.NewReplacer("PROXY", url, "ADDR", strings.TrimPrefix(url, "http://")).Replace(c.value)
			h.env["NO_PROXY"] = c.noProxy
			h.write("etc/containers/registries.conf", insecureTest)
			ctx, cancel := context.WithTimeout(bg, 10*time.Second)
			defer cancel()
			if !c.used { // the request cannot be answered then
				h.env["NO_PROXY"] += ",other"
				_, err := h.client().Digest(ctx, "registry.test/a:v1")
				if err == nil || slices.Contains(asked(), "registry.test") {
					t.Errorf("%v; the proxy is asked for %q", err, asked())
				}
				return
			}
			if d, err := h.client().Digest(ctx, "registry.test/a:v1"); err != nil || d != digest {
				t.Errorf("%s, %v", d, err)
			}
			if !slices.Contains(asked(), "registry.test") {
				t.Errorf("the proxy is asked for %q", asked())
			}
		})
	}
}

// TestOnlyWhatIsInsecureIsSpokenToInTheClear checks that without permission of the administrator
// only loopback is used without TLS.
func TestOnlyWhatIsInsecureIsSpokenToInTheClear(t *testing.T) {
	for name, c := range map[string]struct {
		ref, conf string
		ok        bool
	}{
		"a name":            {"registry.test/a:v1", "", false},
		"an insecure one":   {"registry.test/a:v1", insecureTest, true},
		"a private address": {"10.1.2.3:5000/a:v1", "", false}, // podman and docker refuse it, too
		"a name in .local":  {"registry.local/a:v1", "", false},
		"another path":      {"registry.test/a:v1", "[[registry]]\nlocation = \"registry.test/b\"\ninsecure = true\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := start(t), newHost(t)
			s.AddImage("a", "v1", layer("x"))
			url, _ := proxyTo(t, s)
			h.env["HTTP_PROXY"], h.env["HTTPS_PROXY"] = url, url
			h.write("etc/containers/registries.conf", c.conf)
			host, _, _ := strings.Cut(c.ref, "/")
			h.write("home/.docker/config.json", auths(host, "me", "secret"))
			s.RequireBasic("me", "secret")
			_, err := h.client(c.ref).Manifest(bg, c.ref)
			if (err == nil) != c.ok {
				t.Errorf("the error is %v", err)
			}
			sent := slices.ContainsFunc(s.Log(), func(l string) bool { return strings.HasSuffix(l, "Basic") })
			if sent != c.ok {
				t.Errorf("the password travelled in the clear: %v", sent)
			}
		})
	}
}

// TestNoProxyIsSentToOurOwnServices checks other spellings of loopback, which a proxy on this host
// would follow.
func TestNoProxyIsSentToOurOwnServices(t *testing.T) {
	for _, to := range []string{"http://LOCALHOST:1", "http://localhost.:1", "http://127.1:1", "http://2130706433:1",
		"http://0x7f.0.0.1:1",
		"http://[::1]:1", "http://[::ffff:169.254.169.254]"} {
		t.Run(to, func(t *testing.T) {
			s, h := start(t), newHost(t)
			s.Redirect(registrytest.Blob, to)
			url, asked := proxyTo(t, s)
			h.env["HTTP_PROXY"] = url
			h.write("etc/containers/registries.conf", insecureTest)
			ctx, cancel := context.WithTimeout(bg, 10*time.Second)
			defer cancel()
			if _, err := h.client().Blob(ctx, "registry.test/a:v1", s.AddBlob([]byte("x")), 0); err == nil {
				t.Error("it is followed")
			}
			hosts := slices.DeleteFunc(asked(), func(h string) bool { return h == "registry.test" })
			if len(hosts) > 0 {
				t.Errorf("the proxy is asked for %q", slices.Compact(hosts))
			}
		})
	}
}

// TestARealmOnLoopback checks that a registry on loopback may have a realm elsewhere on loopback,
// by name. The library refuses another address.
func TestARealmOnLoopback(t *testing.T) {
	s, realm, h := start(t), start(t), newHost(t)
	s.AddImage("a", "v1", layer("x"))
	h.write("home/.docker/config.json", auths(s.Addr(), "me", "secret"))
	s.RequireBearer("me", "secret", 9)
	realm.RequireBearer("me", "wrong", 9)
	s.SetRealm(strings.Replace(realm.URL(), "127.0.0.1", "localhost", 1) + "/token")
	_, err := h.client(s.Ref("a", "v1")).Manifest(bg, s.Ref("a", "v1"))
	wantCode(t, err, banger.CodeDenied, "refuses access")
	if log := realm.Log(); len(log) == 0 || log[0] != "GET /token  Basic" {
		t.Errorf("the realm got %q", log)
	}
}

// TestCancelling checks that a request to a registry that hangs ends when the caller cancels it,
// and that the error says so.
func TestCancelling(t *testing.T) {
	asked, hang := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		asked <- struct{}{}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hang)
	ref, c := strings.TrimPrefix(server.URL, "http://")+"/a", newHost(t).client()
	for name, do := range map[string]func(context.Context) error{
		"manifest": func(ctx context.Context) error { _, err := c.Manifest(ctx, ref); return err },
		"digest":   func(ctx context.Context) error { _, err := c.Digest(ctx, ref); return err },
		"blob": func(ctx context.Context) error {
			_, err := c.Blob(ctx, ref, "sha256:"+strings.Repeat("0", 64), 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(bg)
			go func() {
				<-asked
				cancel()
			}()
			err := do(ctx)
			wantCode(t, err, banger.CodeCanceled, "canceled")
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestALongSkipIsNoStall checks that a long blob is continued at a server that ignores Range. Bytes
// come all the time, so the fetch does not stall, however long it takes to skip the bytes that the
// store has.
func TestALongSkipIsNoStall(t *testing.T) {
	data := bytes.Repeat([]byte("content "), 10_000)
	const pieces, pace, stall = 20, 50 * time.Millisecond, 400 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		tick := time.NewTicker(pace) // the network is slow
		defer tick.Stop()
		for piece := range slices.Chunk(data, len(data)/pieces) {
			<-tick.C
			if _, err := w.Write(piece); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}))
	defer server.Close()
	store, err := blob.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store.Backoff, store.Stall, store.Attempts = time.Millisecond, stall, 3
	c, ref, digest, first := newHost(t).client(), strings.TrimPrefix(server.URL, "http://")+"/a", digestOf(data), true
	err = store.Fetch(bg,
		blob.Source{Digest: digest, Size: int64(len(data)), Open: func(ctx context.Context, at int64) (io.ReadCloser, error) {
			if first { // the first answer breaks at 95 %
				first = false
				return io.NopCloser(bytes.NewReader(data[:len(data)*95/100])), nil
			}
			return c.Blob(ctx, ref, digest, at)
		}})
	if err != nil {
		t.Error(err)
	}
}

// TestCertificatesOfAnIPv6Registry checks certificates of a registry whose name is an IPv6 address.
func TestCertificatesOfAnIPv6Registry(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	s, h := registrytest.New(), newHost(t)
	server := httptest.NewUnstartedServer(s)
	server.Listener.Close()
	server.Listener = l
	server.StartTLS()
	defer server.Close()
	s.AddImage("a", "v1", layer("x"))
	addr := l.Addr().String()
	h.write("etc/docker/certs.d/"+addr+"/ca.crt", string(pem.EncodeToMemory(&pem.Block{
		Type:  "CERTIFICATE",
		Bytes: server.Certificate().Raw,
	})))
	if _, err := h.client().Manifest(bg, fmt.Sprintf("%s/a:v1", addr)); err != nil {
		t.Error(err)
	}
}
