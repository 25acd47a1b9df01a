package cli

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/testing/hosttest"
)

// TestCopy copies files into a VM and out of it. The files of the host's VMs are those of this host.
func TestCopy(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box")
	dir := t.TempDir()
	hosttest.Check(t, os.Mkdir(filepath.Join(dir, "tree"), 0o755))
	hosttest.Check(t, os.WriteFile(filepath.Join(dir, "tree/file"), []byte("text"), 0o755))
	hosttest.Check(t, os.Chmod(filepath.Join(dir, "tree/file"), 0o755|os.ModeSetuid))
	copied := func(path string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(dir, path)); string(text) != "text" || err != nil {
			t.Errorf("%s is %q, %v", path, text, err)
		}
	}
	h.check(
		line{args: "cp -q " + dir + "/tree box:" + dir + "/in"},
		line{args: "cp -q box:" + dir + "/tree " + dir + "/out",
			stderr: "banger: 1 file lost its setuid or setgid bit or capabilities; -a keeps them\n"},
		line{args: "cp -q -a box:" + dir + "/tree " + dir + "/all"},
		line{args: "cp -q no:/x y", code: 1, stderr: noVM},
		line{args: "cp -q box:/no/such y", code: 1, stderr: "banger: …"},
		line{args: "cp -q /no/such box:/x", code: 1,
			stderr: "banger: cannot copy: lstat /no/such: no such file or directory\n"},
	)
	copied("in/file")
	copied("out/file")
	copied("all/file")
	got := h.banger("cp", "box:"+dir+"/tree", "-")
	r := tar.NewReader(bytes.NewReader([]byte(got.stdout)))
	names := ""
	for head, err := r.Next(); err != io.EOF; head, err = r.Next() {
		hosttest.Check(t, err)
		names += head.Name + " "
	}
	if names != "tree/ tree/file " || got.code != 0 {
		t.Errorf("the tar has %q: %s", names, got.stderr)
	}
	hosttest.Check(t, os.Mkdir(filepath.Join(dir, "tar"), 0o755))
	h.with(got.stdout, "cp", "-q", "-", "box:"+dir+"/tar").is(t, "", "", 0)
	copied("tar/tree/file")
}
