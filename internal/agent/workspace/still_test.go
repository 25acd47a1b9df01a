package workspace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// serve is the method of a Manager or a Still.
type serve func(context.Context, io.Writer, *frame.Reader, guest.Request) (frame.Type, any, error)

// ask makes a request, and returns what was written and what comes last.
func (s serve) ask(t *testing.T, op, name string) (written []byte, answer any, err error) {
	t.Helper()
	var out bytes.Buffer
	r := guest.Request{Op: op, Workspace: &guest.WorkspaceRequest{Name: name}}
	_, answer, err = s(t.Context(), &out, frame.NewReader(stdin(t, nil)), r)
	return out.Bytes(), answer, err
}

// asIs describes all that is in a directory, but for the times at which it was read.
func asIs(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		st.Atim = unix.Timespec{}
		fmt.Fprintf(&b, "%s %+v\n", path, st)
		if err == nil && d.Type().IsRegular() {
			data, rerr := os.ReadFile(path)
			err = rerr
			fmt.Fprintf(&b, "%x\n", data)
		}
		return err
	}))
	return b.String()
}

// loopsOf lists the loop devices that have a file below a directory.
func loopsOf(dir string) (list []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range files {
		if data, _ := os.ReadFile(name); strings.HasPrefix(string(data), dir) {
			list = append(list, name)
		}
	}
	return list
}

// noMore checks that no more loop devices have files below a directory than before. Another process may keep some of
// those for a while, in its namespace of mounts.
func noMore(t *testing.T, dir string, before []string) {
	t.Helper()
	for _, name := range loopsOf(dir) {
		if !slices.Contains(before, name) {
			t.Errorf("left is %s", name)
		}
	}
}

// TestAStillDiskSaysTheSame as the guest said before it ended. Nothing of the disk changes, and nothing stays mounted.
func TestAStillDiskSaysTheSame(t *testing.T) {
	w := newWorld(t)
	w.make("box", map[string]string{"file": "1", "gone": "1", "dir/in": "1"})
	w.make("other", map[string]string{"file": "1"})
	write(t, w.path("box/file"), "2")
	write(t, w.path("box/new/in"), "2")
	check(t, os.Remove(w.path("box/gone")))
	check(t, os.RemoveAll(w.path("box/dir")))
	check(t, os.Mkdir(w.path("box/dir"), 0o755))
	write(t, filepath.Join(w.dir, id("unfinished"), imageFile), "half a baseline")
	write(t, filepath.Join(w.dir, id("box"), "7/upper/old"), "of a reset that was cut off")
	list := w.List()
	sent, report, err := serve(w.Serve).ask(t, guest.OpWorkspaceChanges, "box")
	check(t, err)
	if len(sent) < 2000 {
		t.Errorf("the guest says only %q", sent)
	}
	w.end()
	before, loops := asIs(t, w.dir), loopsOf(w.dir)
	s := serve(Still{Dir: w.dir, Load: noModules}.Serve)
	for range 2 {
		if _, got, err := s.ask(t, guest.OpWorkspaces, ""); err != nil || !reflect.DeepEqual(got, list) {
			t.Errorf("there are %+v instead of %+v, %v", got, list, err)
		}
		got, last, err := s.ask(t, guest.OpWorkspaceChanges, "box")
		if err != nil || !bytes.Equal(got, sent) || !reflect.DeepEqual(last, report) {
			t.Errorf("it says %q and %+v instead of %q and %+v, %v", got, last, sent, report, err)
		}
	}
	if _, _, err := s.ask(t, guest.OpWorkspaceChanges, "nonesuch"); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("what is not there: %v", err)
	}
	for _, op := range []string{guest.OpWorkspacePrepare, guest.OpWorkspaceReset, guest.OpWorkspaceUpdate,
		guest.OpWorkspaceRemove} {
		if _, _, err := s.ask(t, op, "box"); banger.CodeOf(err) != banger.CodeConflict {
			t.Errorf("%s: %v", op, err)
		}
	}
	if asIs(t, w.dir) != before {
		t.Error("the disk has changed")
	}
	noMore(t, w.dir, loops)
	w.boot()
	if _, err := os.Stat(w.path("box/new/in")); err != nil {
		t.Errorf("the next boot: %v", err)
	}
}

// TestADiskWithoutWorkspaces is one of a VM that had none, or that never started.
func TestADiskWithoutWorkspaces(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "nonesuch")} {
		list, err := Still{Dir: dir}.List()
		if err != nil || list == nil || len(list) > 0 {
			t.Errorf("there are %v, %v", list, err)
		}
	}
}

// TestAHostileDiskIsStill checks that a disk on which a guest has set traps is not followed anywhere, that nobody waits
// for it, and that the rest of it can be read.
func TestAHostileDiskIsStill(t *testing.T) {
	w := newWorld(t)
	elsewhere := plain(t)
	in := func(name, file string) string { return filepath.Join(w.dir, id(name), file) }
	names := []string{"whole", "torn", "pipe", "large", "link", "image-pipe", "image-link", "image-torn", "journal",
		"upper-link", "generation-link"}
	for _, name := range names {
		w.make(name, map[string]string{"file": name})
	}
	write(t, w.path("whole/file"), "changed")
	w.end()
	instead := func(path string, make func(path string) error) {
		check(t, os.RemoveAll(path))
		check(t, make(path))
	}
	fifo := func(path string) error { return unix.Mkfifo(path, 0o600) }
	to := func(target string) func(string) error {
		return func(path string) error { return os.Symlink(target, path) }
	}
	check(t, os.WriteFile(in("torn", recordFile), []byte("{"), 0o600))
	instead(in("pipe", recordFile), fifo)
	check(t, os.Truncate(in("large", recordFile), maxRecord+1))
	check(t, os.Rename(in("link", ""), filepath.Join(elsewhere, "link")))
	check(t, os.Symlink(filepath.Join(elsewhere, "link"), filepath.Join(w.dir, id("link"))))
	instead(in("image-pipe", imageFile), fifo)
	instead(in("image-link", imageFile), to(in("whole", imageFile)))
	check(t, os.Truncate(in("image-torn", imageFile), 4096))
	check(t, os.Remove(in("journal", imageFile)))
	if out, err := exec.Command("mkfs.ext4", "-q", in("journal", imageFile), "8M").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	instead(in("upper-link", "1/upper"), to("/etc"))
	instead(in("generation-link", "1"), to(filepath.Join(w.dir, id("whole"), "1")))
	taken := filepath.Join(w.dir, id("zz")) // a second one with a name
	check(t, os.CopyFS(taken, os.DirFS(filepath.Join(w.dir, id("whole")))))
	check(t, os.WriteFile(filepath.Join(taken, recordFile), bytes.Replace([]byte(read(t, in("whole", recordFile))),
		[]byte(id("whole")), []byte(id("zz")), 1), 0o600))

	s, loops := Still{Dir: w.dir, Load: noModules}, loopsOf(w.dir)
	list, err := s.List()
	if err != nil || len(list) != len(names)+1 {
		t.Errorf("there are %+v, %v", list, err)
	}
	for _, one := range list {
		sent, _, err := serve(s.Serve).ask(t, guest.OpWorkspaceChanges, one.Name)
		switch one.Name {
		case "whole":
			if err != nil || !bytes.Contains(sent, []byte("changed")) {
				t.Errorf("it says %q, %v", sent, err)
			}
		case "journal": // it can be read, and has nothing in common with the changes
			if err != nil {
				t.Error(err)
			}
		default:
			if banger.CodeOf(err) != banger.CodeGuest || len(sent) > 0 {
				t.Errorf("%s says %q, %v", one.Name, sent, err)
			}
		}
	}
	noMore(t, w.dir, loops)
	link := filepath.Join(elsewhere, "workspaces")
	check(t, os.Symlink(w.dir, link))
	if _, err := (Still{Dir: link}).List(); banger.CodeOf(err) != banger.CodeGuest {
		t.Errorf("a symlink in its place: %v", err)
	}
}

// TestAStillDiskListsNoMoreThanThereMayBe.
func TestAStillDiskListsNoMoreThanThereMayBe(t *testing.T) {
	dir := t.TempDir()
	for i := range guest.MaxWorkspaces + 10 {
		write(t, filepath.Join(dir, fmt.Sprintf("%032x", i), recordFile), "{")
	}
	if list, err := (Still{Dir: dir}).List(); err != nil || len(list) != guest.MaxWorkspaces {
		t.Errorf("there are %d, %v", len(list), err)
	}
}
