package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/credential"
	"banger/internal/testing/registrytest"
	"banger/internal/text"
)

// host is a host's configuration: files below a directory, and an environment.
type host struct {
	t   *testing.T
	dir string
	env map[string]string

	resolver *net.Resolver // nil: the host's
}

func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir()}
	h.env = map[string]string{"HOME": filepath.Join(h.dir, "home")}
	return h
}

func (h *host) write(name, content string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// client returns a client with what the host's user would send for references: the proxies, and the logins that the
// references need.
func (h *host) client(refs ...string) *Client {
	h.t.Helper()
	access, err := h.access(refs...)
	if err != nil {
		h.t.Fatal(err)
	}
	return New(h.options(), access)
}

func (h *host) options() Options {
	return Options{UserAgent: "banger/test", Getenv: h.getenv, Etc: filepath.Join(h.dir, "etc"), Backoff: time.Millisecond,
		Resolver: h.resolver}
}

func (h *host) getenv(k string) string { return h.env[k] }

func (h *host) access(refs ...string) (a banger.RegistryAccess, err error) {
	store := credential.New(h.getenv)
	a = banger.RegistryAccess{
		HTTPProxy:  banger.Secret(cmp.Or(h.env["HTTP_PROXY"], h.env["http_proxy"])),
		HTTPSProxy: banger.Secret(cmp.Or(h.env["HTTPS_PROXY"], h.env["https_proxy"])),
		NoProxy:    h.env["NO_PROXY"],
	}
	for _, ref := range refs {
		places, err := New(h.options(), a).Places(ref)
		if err != nil {
			return a, err
		}
		for _, place := range places {
			host, repository, _ := strings.Cut(place, "/")
			l, ok, err := store.Find(bg, host, repository)
			if err != nil {
				return a, err
			}
			if ok {
				a.Logins = append(a.Logins, banger.RegistryLogin{Places: []string{place}, Username: l.Username,
					Password: banger.Secret(l.Password), IdentityToken: banger.Secret(l.IdentityToken)})
			}
		}
	}
	a.Known, err = store.Hosts()
	return a, err
}

func start(t *testing.T) *registrytest.Server {
	s := registrytest.Start()
	t.Cleanup(s.Close)
	return s
}

func layer(data string) registrytest.Layer {
	return registrytest.Layer{Stored: []byte(data), Plain: []byte(data)}
}

var bg = context.Background()

func wantCode(t *testing.T, err error, code banger.Code, words string) {
	t.Helper()
	if err == nil || banger.CodeOf(err) != code || !strings.Contains(err.Error(), words) {
		t.Errorf("the error is %v (%s), not one of %s with %q", err, banger.CodeOf(err), code, words)
	}
}

func TestAManifestIsReadByTagAndDigest(t *testing.T) {
	s, c := start(t), newHost(t).client()
	digest := s.AddImage("a/b", "v1", layer("x"))
	for _, ref := range []string{s.Ref("a/b", "v1"), s.Addr() + "/a/b@" + digest} {
		m, err := c.Manifest(bg, ref)
		if err != nil || m.Digest != digest || !strings.Contains(m.MediaType, "manifest") {
			t.Errorf("%s: %s, %v", ref, m.Digest, err)
		}
		if d, err := c.Digest(bg, ref); err != nil || d != digest {
			t.Errorf("the digest of %s is %s, %v", ref, d, err)
		}
	}
	if n := s.Requests(registrytest.Manifest); n != 2 {
		t.Errorf("the digests cost manifests: %d requests", n)
	}
}

// TestRetries checks that a busy registry is asked again a few times, at the time that it names,
// and that other errors are final.
func TestRetries(t *testing.T) {
	for name, c := range map[string]struct {
		fails, status int
		header        http.Header
		asked         int
		code          banger.Code // "": it works in the end
	}{
		"too many requests":         {2, 429, http.Header{"Retry-After": {"0"}}, 3, ""},
		"unavailable for a while":   {3, 503, nil, 4, ""},
		"unavailable for ever":      {100, 502, nil, 5, banger.CodeUnavailable},
		"not there":                 {1, 404, nil, 1, banger.CodeNotFound},
		"not for you":               {1, 403, nil, 1, banger.CodeDenied},
		"never heard of such thing": {1, 501, nil, 1, banger.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := start(t), newHost(t).client()
			s.AddImage("a", "v1", layer("x"))
			s.FailNext(registrytest.Manifest, c.fails, c.status, c.header)
			_, err := client.Manifest(bg, s.Ref("a", "v1"))
			if c.code == "" && err != nil || c.code != "" && banger.CodeOf(err) != c.code {
				t.Errorf("the error is %v", err)
			}
			if n := s.Requests(registrytest.Manifest); n != c.asked {
				t.Errorf("it was asked %d times, not %d", n, c.asked)
			}
		})
	}
}

// TestABlobsErrorSaysWhen checks that the error of a blob says when to ask again.
func TestABlobsErrorSaysWhen(t *testing.T) {
	s, c := start(t), newHost(t).client()
	s.AddImage("a", "v1", layer("x"))
	s.FailNext(registrytest.Blob, 1, 429, http.Header{"Retry-After": {"7"}})
	_, err := c.Blob(bg, s.Ref("a", "v1"), s.AddBlob([]byte("x")), 0)
	after, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err)
	if !ok || after.RetryAfter() != 7*time.Second || isPermanent(err) {
		t.Errorf("the error is %v", err)
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	for s, want := range map[string]time.Duration{"": 0, "3": 3 * time.Second, "-3": 0, "soon": 0, "99999999": maxWait,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0, "Fri, 31 Dec 9999 23:59:59 GMT": maxWait} {
		if got := retryAfter(s); got != want {
			t.Errorf("%q is %v, not %v", s, got, want)
		}
	}
}

func TestABlobFromTheMiddle(t *testing.T) {
	data := strings.Repeat("0123456789", 1000)
	for name, ignore := range map[string]bool{"the server takes Range": false, "the server sends all": true} {
		t.Run(name, func(t *testing.T) {
			s, c := start(t), newHost(t).client()
			digest := s.AddBlob([]byte(data))
			s.IgnoreRange(ignore)
			r, err := c.Blob(bg, s.Ref("a", "v1"), digest, 4321)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || string(got) != data[4321:] {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

// TestRangesThatAreMisunderstood checks servers that reject an open range, or send another range
// than the requested one.
func TestRangesThatAreMisunderstood(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header string
		ok     bool
	}{
		"not satisfiable":     {416, "", true},
		"another range":       {206, "bytes 0-9/10", false},
		"no range":            {206, "", false},
		"the range, in words": {206, "bytes five-", false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v2/" && r.Header.Get("Range") != "" {
					w.Header().Set("Content-Range", c.header)
					w.WriteHeader(c.status)
				}
				io.WriteString(w, "0123456789")
			}))
			defer server.Close()
			r, err := newHost(t).client().
				Blob(bg, strings.TrimPrefix(server.URL, "http://")+"/a", "sha256:"+strings.Repeat("0", 64), 5)
			if !c.ok {
				wantCode(t, err, banger.CodeUnavailable, "asked for the bytes from 5 on")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || string(got) != "56789" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	s, c := start(t), newHost(t).client()
	s.AddManifest("a", "huge", "application/vnd.oci.image.manifest.v1+json", bytes.Repeat([]byte(" "), 5<<20))
	_, err := c.Manifest(bg, s.Ref("a", "huge"))
	wantCode(t, err, banger.CodeBadImage, "more than 4 MiB")

	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	defer liar.Close()
	_, err = c.Manifest(bg, strings.TrimPrefix(liar.URL, "http://")+"/a@sha256:"+strings.Repeat("0", 64))
	wantCode(t, err, banger.CodeBadImage, "not sha256:000")
}

// TestAManifestOfAGibibyte checks that a manifest without an end is neither kept nor waited for.
func TestAManifestOfAGibibyte(t *testing.T) {
	sent := int64(0)
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		n, _ := io.CopyN(w, spaces{}, 1<<30)
		sent += n
	}))
	_, err := newHost(t).client().Manifest(bg, strings.TrimPrefix(endless.URL, "http://")+"/a")
	wantCode(t, err, banger.CodeBadImage, "more than 4 MiB")
	endless.Close()
	if sent > 64<<20 {
		t.Errorf("%d bytes were sent before the client was sure", sent)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestARegistrysWordsAreHarmless makes a registry send, in each place, terminal control characters
// or endless text. Errors show them bounded and escaped.
func TestARegistrysWordsAreHarmless(t *testing.T) {
	evil := "\u202e\u009b31m\u200b" + strings.Repeat("long ", 100_000)
	for name, answer := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(501)
				io.WriteString(w, `{"errors":[{"code":"X","message":"\u001b]0;title\u0007`+evil[:7000]+`"}]}`)
			}
		},
		"a challenge": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+evil[:7000]+`",service="`+evil[:7000]+`"`)
			w.WriteHeader(401)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.Header().Set("Location", "http://"+evil[:7000])
				w.WriteHeader(307)
			}
		},
	} {
		server := httptest.NewServer(answer)
		_, err := newHost(t).client().Manifest(bg, strings.TrimPrefix(server.URL, "http://")+"/a")
		server.Close()
		if err == nil {
			t.Errorf("%s is no error", name)
			continue
		}
		if text.Line(err.Error()) != err.Error() || len(err.Error()) > 3*text.MaxError {
			t.Errorf("%s: the error has %d bytes: %.200q", name, len(err.Error()), err)
		}
	}
}

func TestAHundredPullsAreOneGet(t *testing.T) {
	s, c := start(t), newHost(t).client()
	data := bytes.Repeat([]byte("content "), 100_000)
	digest, ref := s.AddBlob(data), s.Ref("a", "v1")
	store, err := blob.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	src := blob.Source{Digest: digest, Size: int64(len(data)),
		Open: func(ctx context.Context, at int64) (io.ReadCloser, error) {
			return c.Blob(ctx, ref, digest, at)
		}}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := store.Fetch(bg, src); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, sent := s.Requests(registrytest.Blob), s.Bytes(registrytest.Blob); n != 1 || sent != int64(len(data)) {
		t.Errorf("%d requests, %d bytes for %d", n, sent, len(data))
	}
}

// TestFaultsOnTheWay checks that after any fault of the registry the store has the right blob, and
// that only the missing bytes are fetched.
func TestFaultsOnTheWay(t *testing.T) {
	data := bytes.Repeat([]byte("content "), 50_000)
	for name, c := range map[string]struct {
		fault  func(*registrytest.Server)
		ranges bool // the second request is for a part
		wrong  bool
	}{
		"the connection breaks": {func(s *registrytest.Server) { s.Cut(300_000, 1) }, true, false},
		"nothing comes":         {func(s *registrytest.Server) { s.Stall(1) }, true, false},
		"it is busy":            {func(s *registrytest.Server) { s.FailNext(registrytest.Blob, 1, 503, nil) }, false, false},
		"a byte is wrong":       {func(s *registrytest.Server) { s.Corrupt(1) }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := start(t), newHost(t).client()
			digest, ref := s.AddBlob(data), s.Ref("a", "v1")
			c.fault(s)
			store, err := blob.OpenStore(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			store.Backoff, store.Stall = time.Millisecond, 300*time.Millisecond
			src := blob.Source{Digest: digest, Size: int64(len(data)),
				Open: func(ctx context.Context, at int64) (io.ReadCloser, error) {
					return client.Blob(ctx, ref, digest, at)
				}}
			err = store.Fetch(bg, src)
			if errors.Is(err, blob.ErrDigest) != c.wrong || err != nil && !c.wrong {
				t.Fatal(err)
			}
			if c.wrong {
				if err := store.Fetch(bg, src); err != nil {
					t.Fatalf("the second time: %v", err)
				}
			}
			log := s.Log()
			if ranged := slices.ContainsFunc(log, func(l string) bool {
				return strings.Contains(l, "bytes=")
			}); ranged != c.ranges {
				t.Errorf("the requests are %q", log)
			}
			if sent := s.Bytes(registrytest.Blob); c.ranges && sent != int64(len(data)) {
				t.Errorf("%d bytes travelled for %d", sent, len(data))
			}
		})
	}
}

func digestOf(p []byte) string {
	d := sha256.Sum256(p)
	return "sha256:" + hex.EncodeToString(d[:])
}
