package agent

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testing/overlaytest"
)

// upperDirectory returns a directory with what overlayfs writes for changes of every kind (overlayfs.rst).
func upperDirectory(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("device nodes and trusted attributes are root's")
	}
	at := overlaytest.Directory(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(at, name) }
	for _, d := range []string{"etc", "opaque", "deep/er", "proc", "run/secrets", "lib/modules/6.1", "tmp"} {
		must(os.MkdirAll(in(d), 0o755))
	}
	for name, data := range map[string]string{"etc/hostname": "box", "etc/hosts": "127.0.0.1", "etc/passwd": "root",
		"opaque/new": "n", "deep/er/file": "content", "tmp/kept": "k"} {
		must(os.WriteFile(in(name), []byte(data), 0o644))
	}
	must(unix.Mknod(in("etc/gone"), unix.S_IFCHR, 0))
	must(unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(in("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 300))))
	must(unix.Mkfifo(in("pipe"), 0o600))
	must(os.Symlink("../target", in("link")))
	must(os.Link(in("deep/er/file"), in("deep/again")))
	must(unix.Setxattr(in("opaque"), "trusted.overlay.opaque", []byte("y"), 0))
	must(unix.Setxattr(in("deep"), "trusted.overlay.origin", []byte("\x00\xfb"), 0))
	must(unix.Setxattr(in("deep/er/file"), "trusted.colour", []byte("blue\x00"), 0))
	must(os.Chown(in("deep/er/file"), 1234, 4_000_000_000))
	must(os.Chmod(in("deep/er/file"), 0o755|os.ModeSetuid))
	must(os.Chtimes(in("deep/er/file"), time.Time{}, time.Unix(1_700_000_000, 123_456_789)))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(err)
	defer unix.Close(fd)
	must(unix.Bind(fd, &unix.SockaddrUnix{Name: in("socket")}))
	return at
}

func layerEntries(t *testing.T, layer io.Reader) map[string]string {
	t.Helper()
	all := map[string]string{}
	tr := tar.NewReader(layer)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if all[h.Name] != "" {
			t.Errorf("%s is there twice", h.Name)
		}
		all[h.Name] = strings.TrimSpace(fmt.Sprintf("%c %s%s", h.Typeflag, h.Linkname, data))
	}
}

// TestChangesAreALayer checks that overlayfs's own marks become those of a layer, and that banger's
// files are left out.
func TestChangesAreALayer(t *testing.T) {
	var layer bytes.Buffer
	if err := writeChanges(upperDirectory(t), &layer); err != nil {
		t.Fatal(err)
	}
	got := layerEntries(t, &layer)
	file, again := "deep/er/file", "deep/again"
	if strings.HasPrefix(got[file], "1") { // which of two names comes first is the directory's matter
		file, again = again, file
	}
	want := map[string]string{
		"etc/": "5", "etc/passwd": "0 root", "etc/.wh.gone": "0",
		"opaque/": "5", "opaque/.wh..wh..opq": "0", "opaque/new": "0 n",
		"deep/": "5", "deep/er/": "5", file: "0 content", again: "1 " + file,
		"null": "3", "disk": "4", "pipe": "6", "link": "2 ../target",
		"tmp/": "5", "tmp/kept": "0 k", "lib/": "5", "lib/modules/": "5",
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s is %q, not %q", name, got[name], w)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("too much: %q", got)
	}
}

func TestChangesKeepWhatAFileIs(t *testing.T) {
	at := upperDirectory(t)
	if err := os.Remove(filepath.Join(at, "deep/again")); err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	if err := writeChanges(at, &layer); err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(&layer)
	for {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch h.Name {
		case "disk":
			if h.Devmajor != 259 || h.Devminor != 300 {
				t.Errorf("the device is %d:%d", h.Devmajor, h.Devminor)
			}
		case "deep/":
			if len(h.PAXRecords) > 0 && h.PAXRecords["SCHILY.xattr.trusted.overlay.origin"] != "" {
				t.Error("overlayfs's own attribute is in the layer")
			}
		case "deep/er/file":
			if h.Uid != 1234 || h.Gid != 4_000_000_000 || h.Mode != 0o4755 ||
				h.ModTime.UnixNano() != 1_700_000_000_123_456_789 || h.PAXRecords["SCHILY.xattr.trusted.colour"] != "blue\x00" {
				t.Errorf("%+v", h)
			}
			return
		}
	}
}

// TestChangesRefuseTheNameOfAWhiteout checks that a name which would delete another file in a layer
// is reported and not written.
func TestChangesRefuseTheNameOfAWhiteout(t *testing.T) {
	at := t.TempDir()
	if err := os.WriteFile(filepath.Join(at, ".wh.passwd"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeChanges(at, io.Discard); err == nil || !strings.Contains(err.Error(), ".wh.passwd") {
		t.Errorf("the error is %v", err)
	}
}

// TestChangesOfAFileThatChanges checks that a file that shrinks while it is read is filled up, and
// one that grows is cut.
func TestChangesOfAFileThatChanges(t *testing.T) {
	at := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(at, []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{3, 9} {
		var b bytes.Buffer
		l := &layerWriter{tar: tar.NewWriter(&b)}
		if err := l.file(at, &tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: size}); err != nil {
			t.Fatal(err)
		}
		if err := l.tar.Close(); err != nil {
			t.Fatal(err)
		}
		if got := layerEntries(t, &b)["f"]; len(got) != int(size)+2 || !strings.HasPrefix(got, "0 123") {
			t.Errorf("size %d gives %q", size, got)
		}
	}
}
