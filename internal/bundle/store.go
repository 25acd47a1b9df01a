// Package bundle fetches programs that a hash pins, from the npm registry and other web servers, and packs them as one
// layer of an image. None of their scripts runs.
//
// The package must not know what a program is for, nor where a layer goes.
package bundle

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/contextio"
	"banger/internal/private"
	"banger/internal/recipe"
)

// Limits of what is fetched and unpacked.
const (
	maxFetched  = 2 << 30
	maxUnpacked = 8 << 30
	maxEntries  = 1 << 20
	maxSilence  = time.Minute // without a byte
	maxWait     = 10 * time.Minute
)

// Store keeps fetched files by their hashes, so that each is fetched once.
type Store struct {
	Dir string // it is made if needed
	NPM NPM
	// Client is the client for web servers; nil means one that uses the proxies of the environment.
	Client *http.Client
}

// pinned is a file with the hash that decides what it is.
type pinned struct {
	what string // for a person
	url  string
	name string // in the store
	sum  []byte
	hash func() hash.Hash
}

func ofPackage(p recipe.Package, npm NPM) (f pinned, err error) {
	f = pinned{what: p.Name + " " + p.Version, url: npm.Tarball(p.Name, p.Version), hash: sha512.New}
	f.sum, err = base64.StdEncoding.DecodeString(p.Integrity[len("sha512-"):])
	f.name = "sha512-" + hex.EncodeToString(f.sum)
	return f, err
}

func ofArchive(a recipe.Archive) (f pinned, err error) {
	f = pinned{what: a.URL, url: a.URL, hash: sha256.New}
	f.sum, err = hex.DecodeString(a.SHA256)
	f.name = "sha256-" + a.SHA256
	return f, err
}

// Package returns the open file of an npm package, a gzipped tar. It fetches the package if the store does not have it.
func (s Store) Package(ctx context.Context, p recipe.Package, emit banger.Emit) (*os.File, error) {
	f, err := ofPackage(p, s.NPM)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, f, emit)
}

// open returns a file of the store, whose hash is checked each time: another program may have changed it.
func (s Store) open(ctx context.Context, f pinned, emit banger.Emit) (*os.File, error) {
	if err := private.Make(s.Dir, 0o700); err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "cannot make the directory %s: %w", s.Dir, banger.Cause(err))
	}
	lock, _, err := private.Take(s.Dir, f.name+".lock", maxWait)
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "another process fetches %s for too long: %w", f.what,
			banger.Cause(err))
	}
	defer lock.Release()
	path := filepath.Join(s.Dir, f.name)
	if file, err := os.Open(path); err == nil {
		h := f.hash()
		if _, err := io.Copy(h, contextio.NewReader(ctx, file)); err == nil && string(h.Sum(nil)) == string(f.sum) {
			_, err = file.Seek(0, io.SeekStart)
			return file, err
		}
		file.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if err := s.fetch(ctx, f, path, emit); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// fetch writes the file f to path. The file is there completely, or not at all.
func (s Store) fetch(ctx context.Context, f pinned, path string, emit banger.Emit) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, size, err := s.get(ctx, f)
	if err != nil {
		return unreachable(ctx, f, err)
	}
	defer body.Close()
	watch := time.AfterFunc(maxSilence, func() { cancel(errors.New("the server sends nothing")) })
	defer watch.Stop()
	h := f.hash()
	var n int64
	err = blob.WriteFile(path, 0o600, func(w io.Writer) error {
		in := io.LimitReader(body, maxFetched+1)
		buf := make([]byte, 256<<10)
		shown := time.Now()
		for {
			k, err := in.Read(buf)
			watch.Reset(maxSilence)
			if n += int64(k); n > maxFetched {
				return banger.Errorf(banger.CodeUnavailable, "%s is larger than %s", f.what, banger.FormatSize(maxFetched))
			}
			h.Write(buf[:k])
			if _, err := w.Write(buf[:k]); err != nil {
				return err
			}
			if time.Since(shown) > 100*time.Millisecond {
				shown = time.Now()
				emit(banger.Event{Stage: "fetch", Text: "fetch " + f.what, Bytes: n, Total: size})
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return unreachable(ctx, f, err)
			}
		}
		if string(h.Sum(nil)) != string(f.sum) {
			return banger.Errorf(banger.CodeUnavailable, "%s from %s is not what its hash says, so it was not kept", f.what,
				f.url).WithHint("something between here and that server changes files")
		}
		return nil
	})
	var known *banger.Error
	if err != nil && !errors.As(err, &known) {
		return banger.Errorf(banger.CodeUnavailable, "cannot keep %s in %s: %w", f.what, s.Dir, banger.Cause(err))
	}
	if err == nil {
		emit(banger.Event{Stage: "fetch", Text: "fetch " + f.what, Bytes: n, Total: n, Done: true})
	}
	return err
}

// get returns the body of the answer, and its size or 0.
func (s Store) get(ctx context.Context, f pinned) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, 0, err
	}
	client := s.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("the server answers %d", resp.StatusCode)
	}
	return resp.Body, max(resp.ContentLength, 0), nil
}

func unreachable(ctx context.Context, f pinned, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return banger.Errorf(banger.CodeUnavailable, "cannot fetch %s from %s: %w", f.what, f.url, banger.Cause(err)).
		WithHint("check the network, HTTPS_PROXY, and the registry in ~/.npmrc or npm_config_registry")
}
