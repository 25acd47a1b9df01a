package convert

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"banger/internal/blob"
	"banger/internal/testing/imagetest"
	"banger/internal/testing/overlaytest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// overlayRoot mounts a file system for the stacks that supports attributes and devices. That of the
// temporary directory may not.
func overlayRoot(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 8<<30))
	for _, cmd := range [][]string{{"/sbin/mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", image},
		{"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", cmd, err, out)
		}
	}
	t.Cleanup(func() { must(t, syscall.Unmount(at, 0)) })
	return at
}

// layersOf returns the layers of a stack in the form of an image.
func layersOf(t *testing.T, s *overlaytest.Stack, pack func([]byte) []byte) []layerBlob {
	t.Helper()
	var list []layerBlob
	for i := range s.Len() {
		var buf bytes.Buffer
		must(t, s.WriteTar(&buf, i))
		data := pack(buf.Bytes())
		list = append(list, imagetest.Blob(data, blob.Digest(buf.Bytes()), blob.Digest(data)))
	}
	return list
}

// wantSame compares two descriptions entry by entry.
func wantSame(t *testing.T, got, want map[string]string) {
	t.Helper()
	differences := 0
	for _, pair := range []struct {
		a, b map[string]string
		what string
	}{{want, got, "should be"}, {got, want, "is"}} {
		for name, line := range pair.a {
			if pair.b[name] != line && differences < 20 {
				differences++
				t.Errorf("%.300q %s %.500q, not %.500q", name, pair.what, line, pair.b[name])
			}
		}
	}
}

// mountImage mounts an ext4 file read-only.
func mountImage(t *testing.T, path string, use func(at string)) {
	t.Helper()
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,ro", path, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() { must(t, syscall.Unmount(at, 0)) }()
	use(at)
}
