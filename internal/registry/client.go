// Package registry speaks with registries of the OCI distribution API. Mirrors and certificates are those that the
// host's files name for docker, podman or containerd; logins and proxies are those that the caller gives.
//
// It must not know what a manifest says, where blobs are kept, or where logins are. It returns bytes.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"banger"
	"banger/internal/blob"
)

// Options configure Clients. The zero value uses the host's files.
type Options struct {
	UserAgent string
	Getenv    func(string) string // nil: os.Getenv; of this process, for HOME and CONTAINERS_REGISTRIES_CONF
	Etc       string              // "": /etc; holds docker, containers and containerd
	Resolver  *net.Resolver       // nil: the host's
	Backoff   time.Duration       // before the second attempt for a manifest; it doubles; 0: 500 ms
	Silence   time.Duration       // how long a host may be silent before its first byte; 0: 5 s
}

// Client speaks with any registry for one operation. It keeps logins and connections as long as it lasts, and remembers
// which hosts did not answer. Its methods may be called concurrently. They return errors of package banger; an error in
// the chain may have the methods Permanent() or RetryAfter().
type Client struct {
	opts   Options
	access banger.RegistryAccess

	mu         sync.Mutex
	transports map[string]http.RoundTripper // by the permissions of authorised calls
	bases      []*http.Transport
	answered   map[string]bool  // hosts, by scheme and address
	silent     map[string]error // hosts that have never answered, with the reason
	busy       time.Duration    // the pause that a registry last asked for
}

// New returns a client that uses access. The caller closes it when the operation has ended.
func New(opts Options, access banger.RegistryAccess) *Client {
	if opts.Getenv == nil {
		opts.Getenv = os.Getenv
	}
	opts.Etc = cmp.Or(opts.Etc, "/etc")
	opts.Backoff = cmp.Or(opts.Backoff, 500*time.Millisecond)
	opts.Silence = cmp.Or(opts.Silence, 5*time.Second)
	return &Client{
		opts:       opts,
		access:     access,
		transports: map[string]http.RoundTripper{},
		answered:   map[string]bool{},
		silent:     map[string]error{},
	}
}

// Close closes the connections that nobody uses.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.bases {
		t.CloseIdleConnections()
	}
}

// Manifest is a manifest or an index as the registry sent it. Its digest was checked.
type Manifest struct {
	Body      []byte
	MediaType string
	Digest    string
}

// Limits of what a registry may make us store or wait for.
const (
	maxManifest     = 4 << 20 // bytes; the limit of registries
	maxTries        = 5
	maxWait         = 2 * time.Minute
	patience        = 10 * time.Second // with a busy registry, in all attempts together
	manifestTimeout = time.Minute      // of one attempt
	maxRedirects    = 10
	maxErrorText    = 300
)

var acceptManifests = strings.Join([]string{
	"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
	"application/vnd.docker.distribution.manifest.v1+prettyjws", // only to get an answer that explains the refusal
}, ", ")

// reference is a parsed name of an image.
type reference struct {
	repo       name.Repository
	identifier string // a tag or a digest
	write      bool   // it is written, not read
	login      bool   // only a login is tried
}

func parse(ref string) (reference, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return reference{}, banger.Errorf(banger.CodeInvalid, "%.200q is not an image reference", ref).
			WithHint("write it as docker does: HOST[:PORT]/NAME:TAG")
	}
	return reference{repo: r.Context(), identifier: r.Identifier()}, nil
}

func (r reference) isDigest() bool { return strings.Contains(r.identifier, ":") }

// Manifest returns the manifest or index that ref, a tag or a digest, names. It tries up to 5 times
// if the registry is busy.
func (c *Client) Manifest(ctx context.Context, ref string) (Manifest, error) {
	r, err := parse(ref)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	err = c.retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
		defer cancel()
		return c.ask(ctx, r, "GET", "manifests/"+r.identifier, nil, func(res *http.Response) (err error) {
			defer res.Body.Close()
			m, err = readManifest(r, res)
			return err
		})
	})
	return m, c.wrap(ctx, r, err)
}

func readManifest(r reference, res *http.Response) (Manifest, error) {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxManifest+1))
	if err != nil {
		return Manifest{}, err
	}
	if len(body) > maxManifest {
		return Manifest{}, blob.Permanent(banger.Errorf(banger.CodeBadImage, "the manifest of %s has more than %s", r.repo,
			banger.FormatSize(maxManifest)))
	}
	m := Manifest{Body: body, MediaType: res.Header.Get("Content-Type"), Digest: blob.Digest(body)}
	for _, want := range []string{res.Header.Get("Docker-Content-Digest"), r.identifier} {
		if strings.HasPrefix(want, "sha256:") && want != m.Digest {
			return Manifest{}, blob.Permanent(banger.Errorf(banger.CodeBadImage, "the manifest of %s is %s, not %s", r.repo,
				m.Digest, want))
		}
	}
	return m, nil
}

// Digest returns the digest of what ref names. If the registry can, the request has no body.
func (c *Client) Digest(ctx context.Context, ref string) (string, error) {
	r, err := parse(ref)
	if err != nil {
		return "", err
	}
	digest := ""
	err = c.ask(ctx, r, "HEAD", "manifests/"+r.identifier, nil, func(res *http.Response) error {
		digest = res.Header.Get("Docker-Content-Digest")
		return res.Body.Close()
	})
	if err == nil && strings.HasPrefix(digest, "sha256:") {
		return digest, nil
	}
	if s, ok := errors.AsType[*statusError](err); err != nil && (!ok || refuses(s.status) || passes(s.status)) {
		return "", c.wrap(ctx, r, err)
	}
	m, err := c.Manifest(ctx, ref)
	return m.Digest, err
}

// Blob returns the bytes of a blob in ref's repository from offset on, not verified. It makes one
// request; the caller continues if the bytes end too early.
func (c *Client) Blob(ctx context.Context, ref, digest string, offset int64) (io.ReadCloser, error) {
	r, err := parse(ref)
	if err != nil {
		return nil, blob.Permanent(err)
	}
	r.identifier = digest
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	var body io.ReadCloser
	use := func(res *http.Response) (err error) {
		body, err = skipTo(res, offset)
		return err
	}
	err = c.ask(ctx, r, "GET", "blobs/"+digest, header, use)
	if s, ok := errors.AsType[*statusError](err); ok && offset > 0 && s.status == http.StatusRequestedRangeNotSatisfiable {
		err = c.ask(ctx, r, "GET", "blobs/"+digest, nil, use) // some registries reject an open range
	}
	if err != nil {
		return nil, c.wrap(ctx, r, err)
	}
	return &blobBody{body, func(err error) error { return c.wrap(ctx, r, err) }}, nil
}

// blobBody is the bytes of a blob, with errors that a person can read.
type blobBody struct {
	io.ReadCloser
	wrap func(error) error
}

func (b *blobBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.wrap(err)
	}
	return n, err
}

// skipTo returns the body of a response from offset on, whether or not the server supports Range
// (RFC 9110, section 14). If the response does not allow that, skipTo closes the body and returns
// an error.
func skipTo(res *http.Response, offset int64) (io.ReadCloser, error) {
	if res.StatusCode != http.StatusPartialContent {
		return &skipping{res.Body, offset}, nil
	}
	var from int64
	if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != offset {
		res.Body.Close()
		return nil, &fault{text: fmt.Sprintf("asked for the bytes from %d on, it sends %.100q", offset,
			res.Header.Get("Content-Range"))}
	}
	return res.Body, nil
}

// skipping drops the first bytes of a body. Each Read drops at most one piece and then returns no
// bytes, so the caller sees progress.
type skipping struct {
	io.ReadCloser
	left int64
}

func (s *skipping) Read(p []byte) (int, error) {
	if s.left == 0 {
		return s.ReadCloser.Read(p)
	}
	n, err := s.ReadCloser.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return 0, err
}

// RoundTripper returns a transport that is authorised for actions ("pull" or "push,pull") on ref's
// repository. It is for a library that speaks the API itself.
func (c *Client) RoundTripper(ctx context.Context, ref, actions string) (http.RoundTripper, error) {
	r, err := parse(ref)
	if err != nil {
		return nil, err
	}
	r.write = true
	conf, err := c.endpoints(r)
	if err != nil {
		return nil, err
	}
	rt, err := c.authorised(ctx, conf[len(conf)-1], actions)
	return rt, c.wrap(ctx, r, err)
}

// Explain describes, for a person, an error of a library that used RoundTripper.
func (c *Client) Explain(ctx context.Context, ref string, err error) error {
	r, perr := parse(ref)
	if perr != nil || err == nil {
		return perr
	}
	r.write = true
	return c.wrap(ctx, r, err)
}

// Places returns where a reference can be read, as HOST[:PORT]/REPOSITORY: first the mirrors, then the registry.
func (c *Client) Places(ref string) (places []string, err error) {
	r, err := parse(ref)
	if err != nil {
		return nil, err
	}
	list, err := c.endpoints(r)
	for _, e := range list {
		places = append(places, e.place())
	}
	return places, err
}

func refuses(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// ask sends one request to each endpoint that may have the answer, mirrors first, until one gives a
// usable answer. use closes the response's body.
func (c *Client) ask(ctx context.Context, r reference, method, path string, header http.Header,
	use func(*http.Response) error) error {
	places, err := c.endpoints(r)
	if err != nil {
		return err
	}
	for _, p := range places {
		var res *http.Response
		if res, err = c.askOne(ctx, p, method, path, header); err == nil {
			err = use(res)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (c *Client) askOne(ctx context.Context, p endpoint, method, path string,
	header http.Header) (*http.Response, error) {
	rt, err := c.authorised(ctx, p, "pull")
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, p.url(path), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	if strings.HasPrefix(path, "manifests/") {
		req.Header.Set("Accept", acceptManifests)
	}
	client := http.Client{Transport: rt, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return refuse("it answers with more than %d redirects", maxRedirects)
		}
		return nil
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
		defer res.Body.Close()
		return nil, statusOf(res)
	}
	return res, nil
}

// retry repeats do while it fails with errors that may pass.
func (c *Client) retry(ctx context.Context, do func() error) error {
	wait, waited := c.opts.Backoff, time.Duration(0)
	for try := 1; ; try++ {
		err := do()
		if err == nil || ctx.Err() != nil || try == maxTries || isPermanent(err) ||
			errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		pause := wait
		if s, ok := errors.AsType[*statusError](err); ok && s.after > 0 {
			pause = s.after
		}
		if waited += pause; waited > patience {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		wait *= 2
	}
}
