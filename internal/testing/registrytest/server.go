// Package registrytest is a registry that fails on demand, for tests of code that reads from
// registries. It implements the reading half of the OCI distribution specification.
//
// It must not know which code reads, or what a test is.
package registrytest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The kinds of a request.
const (
	Manifest = "manifest"
	Blob     = "blob"
)

// Server is one registry on loopback. Its settings may be changed at any time.
type Server struct {
	http *httptest.Server

	mu        sync.Mutex
	manifests map[string]stored // by repository/reference
	blobs     map[string][]byte // by digest
	log       []string
	requests  map[string]int
	sent      map[string]int64

	fail        map[string]*failure
	cutAfter    int
	cuts        int
	stalls      int
	release     chan struct{}
	corrupt     int
	ignoreRange bool
	redirect    map[string]string
	check       func(*http.Request) (challenge string)
	realm       string
	tokens      map[string]int // remaining uses
	issued      int
}

type stored struct {
	mediaType string
	body      []byte
}

type failure struct {
	left   int
	status int
	header http.Header
}

// Start returns a registry without images.
func Start() *Server {
	s := New()
	s.http = httptest.NewServer(s)
	return s
}

// StartTLS is Start with TLS. Certificate returns the server's certificate.
func StartTLS() *Server {
	s := New()
	s.http = httptest.NewTLSServer(s)
	return s
}

// New returns a registry that does not listen. It is used as a handler.
func New() *Server {
	return &Server{
		manifests: map[string]stored{},
		blobs:     map[string][]byte{},
		requests:  map[string]int{},
		sent:      map[string]int64{},
		fail:      map[string]*failure{},
		redirect:  map[string]string{},
		release:   make(chan struct{}),
		tokens:    map[string]int{},
	}
}

// Close ends the server and all stalled requests.
func (s *Server) Close() {
	s.Release()
	s.http.Close()
}

// Certificate returns the certificate that StartTLS made, in DER.
func (s *Server) Certificate() []byte { return s.http.Certificate().Raw }

// Addr returns host:port.
func (s *Server) Addr() string { return s.http.Listener.Addr().String() }

// URL returns scheme://host:port.
func (s *Server) URL() string { return s.http.URL }

// Ref returns a reference as a user types it.
func (s *Server) Ref(name, tag string) string { return s.Addr() + "/" + name + ":" + tag }

func digestOf(p []byte) string {
	sum := sha256.Sum256(p)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// AddBlob stores a blob and returns its digest.
func (s *Server) AddBlob(data []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[digestOf(data)] = data
	return digestOf(data)
}

// Layer is one layer: the stored bytes and the bytes after unpacking.
type Layer struct{ Stored, Plain []byte }

// AddImage stores an image of layers and returns its manifest's digest.
func (s *Server) AddImage(name, tag string, layers ...Layer) string {
	return s.AddImageFor(runtime.GOARCH, name, tag, layers...)
}

// AddImageFor is AddImage for another architecture.
func (s *Server) AddImageFor(arch, name, tag string, layers ...Layer) string {
	diffIDs, descriptors := []string{}, []map[string]any{}
	for _, l := range layers {
		diffIDs = append(diffIDs, digestOf(l.Plain))
		descriptors = append(descriptors, map[string]any{
			"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
			"digest":    s.AddBlob(l.Stored),
			"size":      len(l.Stored),
		})
	}
	config, _ := json.Marshal(map[string]any{
		"os":           "linux",
		"architecture": arch,
		"config":       map[string]any{"Cmd": []string{"/bin/sh"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	body, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaType, "layers": descriptors,
		"config": map[string]any{
			"mediaType": "application/vnd.oci.image.config.v1+json",
			"digest":    s.AddBlob(config),
			"size":      len(config),
		}})
	return s.AddManifest(name, tag, mediaType, body)
}

// AddManifest stores a manifest under a tag and under its digest, and returns the digest.
func (s *Server) AddManifest(name, tag, mediaType string, body []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range []string{tag, digestOf(body)} {
		s.manifests[name+"/"+ref] = stored{mediaType, body}
	}
	return digestOf(body)
}

// FailNext makes the next n requests of a kind fail with a status and a header.
func (s *Server) FailNext(kind string, n, status int, header http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[kind] = &failure{n, status, header}
}

// Cut breaks the connection of the next blobs after a number of bytes of the body.
func (s *Server) Cut(after, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutAfter, s.cuts = after, times
}

// Stall makes the server send half of each of the next blobs and then nothing until Release.
func (s *Server) Stall(times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalls = times
}

// Release ends all stalls and their connections.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.release)
	s.release = make(chan struct{})
}

// Corrupt changes a byte of the next blobs.
func (s *Server) Corrupt(times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corrupt = times
}

// IgnoreRange makes the server send whole blobs, whatever range is requested.
func (s *Server) IgnoreRange(ignore bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ignoreRange = ignore
}

// Redirect redirects all requests of a kind to url plus their path. "" stops that.
func (s *Server) Redirect(kind, url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.redirect[kind] = url
}

// RequireBasic makes the server require a user and a password.
func (s *Server) RequireBasic(user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.check = func(r *http.Request) string {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == password {
			return ""
		}
		return `Basic realm="test"`
	}
}

// RequireBearer makes the server require tokens. A user and a password get a token at the realm,
// which is /token of this server unless SetRealm changes it. A token lasts for uses requests.
func (s *Server) RequireBearer(user, password string, uses int) {
	s.RequireBasic(user, password) // /token requires these
	s.mu.Lock()
	defer s.mu.Unlock()
	basic := s.check
	s.check = func(r *http.Request) string {
		if r.URL.Path == "/token" {
			return basic(r)
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if s.tokens[token] > 0 {
			s.tokens[token]--
			return ""
		}
		realm := s.realm
		if realm == "" {
			realm = s.http.URL + "/token"
		}
		return fmt.Sprintf("Bearer realm=%q,service=\"test\"", realm)
	}
	s.tokens["uses"] = uses
}

// SetRealm sets the URL that gives out tokens.
func (s *Server) SetRealm(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.realm = url
}

// Requests returns how many GETs of a kind were answered, also those with a requested failure.
func (s *Server) Requests(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[kind]
}

// Bytes returns how many bytes of bodies were sent for a kind.
func (s *Server) Bytes(kind string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[kind]
}

// Log returns all requests as "METHOD path range authorization-scheme".
func (s *Server) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	s.log = append(s.log,
		strings.TrimSpace(strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Range"), scheme}, " ")))
	challenge := ""
	if s.check != nil {
		challenge = s.check(r)
	}
	s.mu.Unlock()
	if challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}`, http.StatusUnauthorized)
		return
	}
	name, kind, ref := split(r.URL.Path)
	switch {
	case r.URL.Path == "/v2/":
	case r.URL.Path == "/token":
		s.token(w)
	case kind == "":
		http.NotFound(w, r)
	default:
		s.answer(w, r, name, kind, ref)
	}
}

// split splits the path /v2/NAME/manifests|blobs/REF.
func split(path string) (name, kind, ref string) {
	path, ok := strings.CutPrefix(path, "/v2/")
	for plural, kind := range map[string]string{"/manifests/": Manifest, "/blobs/": Blob} {
		if name, ref, found := strings.Cut(path, plural); ok && found {
			return name, kind, ref
		}
	}
	return "", "", ""
}

func (s *Server) token(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued++
	token := "token-" + strconv.Itoa(s.issued)
	s.tokens[token] = s.tokens["uses"]
	json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, name, kind, ref string) {
	s.mu.Lock()
	if r.Method == http.MethodGet {
		s.requests[kind]++
	}
	if f := s.fail[kind]; f != nil && f.left > 0 {
		f.left--
		s.mu.Unlock()
		for k, v := range f.header {
			w.Header()[k] = v
		}
		w.WriteHeader(f.status)
		return
	}
	to, m, data := s.redirect[kind], s.manifests[name+"/"+ref], s.blobs[ref]
	s.mu.Unlock()
	switch {
	case to != "":
		http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
	case kind == Blob && data != nil:
		s.blob(w, r, data)
	case kind == Manifest && m.body != nil:
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", digestOf(m.body))
		w.Header().Set("Content-Length", strconv.Itoa(len(m.body)))
		if r.Method == http.MethodGet {
			s.count(kind, len(m.body))
			w.Write(m.body)
		}
	default:
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such thing"}]}`, http.StatusNotFound)
	}
}

func (s *Server) count(kind string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[kind] += int64(n)
}

// blob sends a blob, correctly or with the requested failure.
func (s *Server) blob(w http.ResponseWriter, r *http.Request, data []byte) {
	s.mu.Lock()
	cut, stall, corrupt, ignore, release := s.cuts > 0, s.stalls > 0, s.corrupt > 0, s.ignoreRange, s.release
	after := min(s.cutAfter, len(data))
	for _, left := range []*int{&s.cuts, &s.stalls, &s.corrupt} {
		*left = max(*left-1, 0)
	}
	s.mu.Unlock()
	if ignore {
		r.Header.Del("Range")
	}
	if stall {
		after = len(data) / 2
	}
	if corrupt {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	}
	if cut || stall {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:after])
		s.count(Blob, after)
		w.(http.Flusher).Flush()
		if stall {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(&counter{w, s}, r, "", time.Time{}, bytes.NewReader(data))
}

// counter counts the bytes of blobs that are sent.
type counter struct {
	http.ResponseWriter
	s *Server
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.s.count(Blob, n)
	return n, err
}
