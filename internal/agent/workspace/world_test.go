package workspace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/sparse"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/overlaytest"
)

// check fails the test at an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plain returns a directory that is not on overlayfs, which refuses another overlay's upper directory.
func plain(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	return overlaytest.Directory(t)
}

// world is a guest with workspaces.
type world struct {
	*Manager
	t    *testing.T
	root string // where workspaces are mounted
}

// noModules stands for a kernel without modules.
func noModules(string) error { return errors.New("there are no modules") }

func newWorld(t *testing.T) *world {
	t.Helper()
	base := plain(t)
	w := &world{t: t, root: filepath.Join(base, "root")}
	check(t, os.Mkdir(w.root, 0o755))
	w.Manager = New(noModules)
	w.Open(filepath.Join(base, "workspaces"))
	t.Cleanup(func() { w.end() })
	return w
}

// end unmounts everything, as the end of a guest does.
func (w *world) end() {
	for _, one := range w.all {
		readMounts().unmount(one.shown(), unix.MNT_DETACH)
		unix.Unmount(one.base(), unix.MNT_DETACH)
	}
}

// boot is the next boot of the guest.
func (w *world) boot() {
	w.end()
	dir := w.dir
	w.Manager = New(noModules)
	w.Open(dir)
}

// id returns an id for a name.
func id(name string) string { return fmt.Sprintf("%032x", name)[:32] }

func (w *world) path(name string) string { return filepath.Join(w.root, name) }

// new is what a client asks for, for a workspace with a name.
func (w *world) new(name string) banger.Workspace {
	return banger.Workspace{ID: id(name), Name: name, Path: w.path(name), Baseline: "one", Source: "/home/me/" + name}
}

// baseline returns a file system with files, of which those with a slash at the end are directories.
func baseline(t *testing.T, files map[string]string) []byte {
	t.Helper()
	tree := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(tree, name), text)
	}
	return pack(t, tree, "2000", "8M")
}

// pack returns a file system of a size with a tree, as a client sends it.
func pack(t *testing.T, tree, inodes, size string) []byte {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	out, err := exec.Command("mkfs.ext4", "-q", "-O", "^has_journal", "-N", inodes, "-d", tree, image,
		size).CombinedOutput()
	if err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	return withoutHoles(t, image)
}

// withoutHoles returns a file as a client sends it.
func withoutHoles(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	var b bytes.Buffer
	check(t, sparse.Send(&b, f))
	return b.Bytes()
}

// content returns the file that a client has sent.
func content(t *testing.T, sent []byte) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "content"))
	check(t, err)
	defer f.Close()
	_, err = sparse.Receive(bytes.NewReader(sent), f, guest.MaxImage)
	check(t, err)
	return read(t, f.Name())
}

// whole returns a file of some bytes as a client sends it.
func whole(t *testing.T, data []byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "whole")
	check(t, os.WriteFile(path, data, 0o600))
	return withoutHoles(t, path)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	if !strings.HasSuffix(path, "/") {
		check(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	return string(data)
}

// stdin returns data as frames of stdin, with the end.
func stdin(t *testing.T, data []byte) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	for len(data) > 0 {
		n := min(len(data), frame.MaxData-1) // not whole pages
		check(t, frame.Write(&b, frame.Stdin, data[:n]))
		data = data[n:]
	}
	check(t, frame.Write(&b, frame.StdinEOF, nil))
	return &b
}

// try makes a workspace.
func (w *world) try(it banger.Workspace, frames *bytes.Buffer) (banger.Workspace, error) {
	var answers bytes.Buffer
	return w.Prepare(&answers, frame.NewReader(frames), guest.WorkspaceRequest{New: &it, User: "7:8"})
}

// make makes a workspace with files.
func (w *world) make(name string, files map[string]string) banger.Workspace {
	w.t.Helper()
	got, err := w.try(w.new(name), stdin(w.t, baseline(w.t, files)))
	check(w.t, err)
	return got
}

// isEmpty checks that nothing is left in the directory of the workspaces, and that no loop device has a file of it.
func (w *world) isEmpty() {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
		w.t.Errorf("left are %v, %v", entries, err)
	}
	// Another test's process may have a copy of the mounts for a moment.
	agenttest.Await(w.t, "no loop device has a file of it", func() bool { return len(loopsOf(w.dir)) == 0 })
	if len(w.List()) > 0 {
		w.t.Errorf("there are %+v", w.List())
	}
}
