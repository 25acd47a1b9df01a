package registry

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"banger"
	"banger/internal/blob"
)

// htpasswd is a user banger with the password secret (bcrypt).
const htpasswd = "banger:$2b$04$mAV7EOcfh574544yNqJ14ui467eCMtINSDmSHOroWpI5FPVUZpKFm\n"

// startDebian starts Debian's docker-registry, which requires the user of htpasswd, and returns its
// address.
func startDebian(t *testing.T) (addr string) {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	passwords, config := filepath.Join(dir, "htpasswd"), filepath.Join(dir, "config.yml")
	text := fmt.Sprintf(
		"version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:0\n"+
			"auth:\n  htpasswd:\n    realm: test\n    path: %s\n", dir, passwords)
	for file, data := range map[string]string{passwords: htpasswd, config: text} {
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for lines := bufio.NewScanner(log); addr == "" && lines.Scan(); {
		_, rest, _ := strings.Cut(lines.Text(), "listening on ")
		addr, _, _ = strings.Cut(rest, `"`)
	}
	if addr == "" {
		t.Fatal("docker-registry did not say where it listens")
	}
	go io.Copy(io.Discard, log) // ends with the process
	return addr
}

// push writes an image through the client's own transport, and returns a failure in Explain's
// words.
func push(c *Client, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	rt, err := c.RoundTripper(bg, ref, "push,pull")
	if err != nil {
		return err
	}
	if err := remote.Write(tag, img, remote.WithTransport(rt)); err != nil {
		return c.Explain(bg, ref, err)
	}
	return nil
}

// TestAnImageAtARealRegistry checks an image at a real registry: a push needs a login, and all
// bytes can be read back, also from an offset.
func TestAnImageAtARealRegistry(t *testing.T) {
	addr, h := startDebian(t), newHost(t)
	ref := addr + "/team/app:v1"
	img, err := random.Image(300_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, push(h.client(ref), ref, img), banger.CodeDenied, "log in: banger login "+addr)
	h.write("home/.docker/config.json", auths(addr, "banger", "wrong"))
	wantCode(t, push(h.client(ref), ref, img), banger.CodeDenied, "log in again: banger login "+addr)
	h.write("home/.docker/config.json", auths(addr, "banger", "secret"))
	c := h.client(ref)
	if err := push(c, ref, img); err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if d, err := c.Digest(bg, ref); err != nil || d != want.String() {
		t.Errorf("the digest is %s, not %s: %v", d, want, err)
	}
	body, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Manifest(bg, addr+"/team/app@"+want.String()); err != nil || !bytes.Equal(m.Body, body) {
		t.Errorf("the manifest has %d bytes, %v", len(m.Body), err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		readBack(t, c, ref, l)
	}
	_, err = c.Manifest(bg, addr+"/team/app:v2")
	wantCode(t, err, banger.CodeNotFound, "has no image team/app:v2")
	_, err = c.Blob(bg, ref, "sha256:"+strings.Repeat("0", 64), 0)
	wantCode(t, err, banger.CodeNotFound, "")
}

// readBack fetches a layer in two pieces.
func readBack(t *testing.T, c *Client, ref string, l v1.Layer) {
	t.Helper()
	digest, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	store, err := blob.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store.Backoff = 1
	half := size / 2
	err = store.Fetch(bg,
		blob.Source{Digest: digest.String(), Size: size, Open: func(ctx context.Context, at int64) (io.ReadCloser, error) {
			r, err := c.Blob(ctx, ref, digest.String(), at)
			if err != nil || at > 0 {
				return r, err
			}
			return struct {
				io.Reader
				io.Closer
			}{io.LimitReader(r, half), r}, nil
		}})
	if err != nil {
		t.Errorf("the layer %s: %v", digest, err)
	}
}
