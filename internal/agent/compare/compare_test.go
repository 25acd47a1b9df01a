package compare

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testing/overlaytest"
)

// check fails the test at an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plain returns a directory that is not on overlayfs, which refuses whiteouts and another overlay's upper directory.
func plain(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("device nodes and trusted attributes are root's")
	}
	return overlaytest.Directory(t)
}

// trees are an image with two overlays on it.
type trees struct {
	t    *testing.T
	base string
}

// makeTrees makes an image by work, and mounts two overlays on it.
func makeTrees(t *testing.T, work func(image string)) trees {
	t.Helper()
	s := trees{t, plain(t)}
	check(t, os.Mkdir(s.image(), 0o755))
	work(s.image())
	for _, side := range []string{"before", "after"} {
		for _, dir := range []string{"upper", "work", "merged"} {
			check(t, os.MkdirAll(filepath.Join(s.base, side, dir), 0o755))
		}
		merged := s.merged(side)
		check(t, unix.Mount("overlay", merged, "overlay", 0, fmt.Sprintf(
			"redirect_dir=off,metacopy=off,index=off,lowerdir=%s,upperdir=%s,workdir=%s", s.image(), s.upper(side),
			filepath.Join(s.base, side, "work"))))
		t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	}
	return s
}

func (s trees) image() string             { return filepath.Join(s.base, "image") }
func (s trees) upper(side string) string  { return filepath.Join(s.base, side, "upper") }
func (s trees) merged(side string) string { return filepath.Join(s.base, side, "merged") }

// compare returns the changes of a comparison by their paths.
func (s trees) compare(o Options) map[string]banger.FileChange {
	s.t.Helper()
	o.Image = s.image()
	all, last := map[string]banger.FileChange{}, ""
	check(s.t, Trees(s.t.Context(), o, func(c banger.FileChange) error {
		path := c.Path
		if c.RawPath != nil {
			path = string(c.RawPath)
		}
		if _, ok := all[path]; ok {
			s.t.Errorf("%q is there twice", path)
		}
		if order(path) < order(last) {
			s.t.Errorf("%q comes after %q", path, last)
		}
		all[path], last = c, path
		return nil
	}))
	return all
}

// order is a key that sorts paths as a walk meets them.
func order(path string) string { return strings.ReplaceAll(path, "/", "\x00") }

// words returns a change in few words.
func words(c banger.FileChange) string {
	return strings.TrimSpace(c.Change + " " + strings.Join(c.Differs, " ") + c.Note)
}

func write(t *testing.T, path, data string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(data), 0o644))
}

// TestEachKindOfChange makes one change of each kind in one of two overlays, and compares them with each other and with
// the image.
func TestEachKindOfChange(t *testing.T) {
	s := makeTrees(t, func(image string) {
		for _, name := range []string{"text", "same", "mode", "owner", "xattr", "gone", "kind", "tree/a", "tree/b/c",
			"opaque/old", "link-to"} {
			write(t, filepath.Join(image, name), "one\ntwo\nthree\n")
		}
		check(t, os.Symlink("old", filepath.Join(image, "link")))
	})
	in := func(name string) string { return filepath.Join(s.merged("after"), name) }
	write(t, in("text"), "one\n2\nthree\n")
	write(t, in("same"), "one\ntwo\nthree\n") // copied up, and the same
	check(t, os.Chmod(in("mode"), 0o755|os.ModeSetuid))
	check(t, os.Chown(in("owner"), 1000, 1001))
	check(t, unix.Setxattr(in("xattr"), "user.colour", []byte("blue"), 0))
	check(t, os.Remove(in("gone")))
	check(t, os.Remove(in("kind")))
	write(t, in("kind/inside"), "x")
	check(t, os.RemoveAll(in("tree")))
	check(t, os.RemoveAll(in("opaque")))
	write(t, in("opaque/new"), "\x00binary")
	check(t, os.Remove(in("link")))
	check(t, os.Symlink("new", in("link")))
	write(t, in("made \n\x1b"), "no end")
	write(t, in("no\xffutf8"), "x\n")
	check(t, os.Link(in("text"), in("text2")))
	check(t, unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(t, unix.Mkfifo(in("pipe"), 0o600))
	want := map[string]string{
		"/text": "changed content", "/text2": "added", "/mode": "changed mode", "/owner": "changed owner",
		"/xattr": "changed xattrs", "/gone": "removed", "/kind": "changed type mode", "/kind/inside": "added",
		"/tree": "removed", "/tree/a": "removed", "/tree/b": "removed", "/tree/b/c": "removed",
		"/opaque/old": "removed", "/opaque/new": "added", "/link": "changed target", "/made \n\x1b": "added",
		"/no\xffutf8": "added", "/null": "added", "/pipe": "added"}
	for _, before := range []string{"", s.upper("before"), filepath.Join(s.base, "nowhere")} {
		got := s.compare(Options{Before: before, After: s.upper("after"), Patch: true})
		for path, c := range got {
			if words(c) != want[path] {
				t.Errorf("%q is %q, not %q", path, words(c), want[path])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d changes instead of %d: %q", len(got), len(want), slices.Sorted(maps.Keys(got)))
		}
		if got["/text"].Patch != "--- a/text\n+++ b/text\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n" {
			t.Errorf("the patch is %q", got["/text"].Patch)
		}
		if c := got["/made \n\x1b"]; c.Patch != "--- /dev/null\n+++ \"b/made \\012\\033\"\n@@ -0,0 +1 @@\n+no end\n"+
			"\\ No newline at end of file\n" {
			t.Errorf("the patch is %q", c.Patch)
		}
		if c := got["/opaque/new"]; !c.Binary || c.Patch != "" || c.After.Size != 7 {
			t.Errorf("it is %+v", c)
		}
		if c := got["/link"]; c.Before.Target != "old" || c.After.Target != "new" {
			t.Errorf("the link is %+v, %+v", c.Before, c.After)
		}
		if c := got["/null"]; c.After.Device != "1:3" {
			t.Errorf("the device is %+v", c.After)
		}
	}
	back := s.compare(Options{Before: s.upper("after"), After: s.upper("before")})
	for path, c := range back {
		other := strings.NewReplacer("added", "removed", "removed", "added").Replace(words(c))
		if other != want[path] {
			t.Errorf("backwards, %q is %q", path, words(c))
		}
	}
	if len(back) != len(want) {
		t.Errorf("backwards there are %d changes", len(back))
	}
	quiet := s.compare(Options{After: s.upper("after"), Quiet: func(path string) bool { return path == "kind" }})
	if _, ok := quiet["/kind"]; ok || words(quiet["/kind/inside"]) != "added" {
		t.Errorf("what is left out is there: %q", slices.Sorted(maps.Keys(quiet)))
	}
}

// oracle lists all that a tree shows, for a program that knows no overlayfs.
func oracle(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		check(t, err)
		var st unix.Stat_t
		check(t, unix.Lstat(path, &st))
		shown := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			check(t, err)
			shown += fmt.Sprintf(" %x", sha256.Sum256(data))
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			check(t, err)
			shown += " " + target
		}
		all[strings.TrimPrefix(path, root)] = shown
		return nil
	}))
	return all
}

// randomly makes random changes below root.
func randomly(t *testing.T, r *rand.Rand, root string, times int) {
	t.Helper()
	name := func() string {
		path := root
		for range 1 + r.IntN(3) {
			path = filepath.Join(path, fmt.Sprintf("%c", 'a'+r.IntN(4)))
		}
		return path
	}
	lines := func() string {
		var b strings.Builder
		for range r.IntN(12) {
			fmt.Fprintf(&b, "line %d\n", r.IntN(4))
		}
		if r.IntN(4) == 0 {
			b.WriteString("no end")
		}
		return b.String()
	}
	for range times {
		path := name()
		switch r.IntN(9) { // errors are as good as successes: the oracle sees what became of it
		case 0, 1:
			os.MkdirAll(path, 0o755)
		case 2, 3, 4:
			os.MkdirAll(filepath.Dir(path), 0o755)
			os.WriteFile(path, []byte(lines()), 0o644)
		case 5:
			os.RemoveAll(path)
		case 6:
			os.Rename(path, name())
		case 7:
			os.Symlink(fmt.Sprint(r.IntN(3)), path)
		case 8:
			if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink == 0 {
				os.Chmod(path, fs.FileMode(0o700+r.IntN(64)))
				os.Lchown(path, r.IntN(2), r.IntN(2))
			}
		}
	}
}

// TestRandomTreesAsGNUSeesThem compares random changes of a random image with what a walk through the mounted trees
// finds. diff(1) must then find the same, and patch(1) must make one tree of the other.
func TestRandomTreesAsGNUSeesThem(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s := makeTrees(t, func(image string) { randomly(t, r, image, 40) })
			randomly(t, r, s.merged("before"), r.IntN(25))
			randomly(t, r, s.merged("after"), r.IntN(25))
			for from, roots := range map[string]string{s.upper("before"): s.merged("before"), "": s.image()} {
				s.againstOracle(from, roots)
			}
		})
	}
}

func (s trees) againstOracle(upper, root string) {
	t := s.t
	t.Helper()
	before, after := oracle(t, root), oracle(t, s.merged("after"))
	want := map[string]string{}
	for path, shown := range before {
		switch now, ok := after[path]; {
		case !ok:
			want[path] = banger.FileRemoved
		case now != shown:
			want[path] = banger.FileChanged
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			want[path] = banger.FileAdded
		}
	}
	got := s.compare(Options{Before: upper, After: s.upper("after"), Patch: true})
	var patches strings.Builder
	contents := 0
	for path, c := range got {
		if c.Note != "" || c.Change != want[strings.TrimSuffix(path, "/")] {
			t.Errorf("%q is %q (%s), not %q", path, c.Change, words(c), want[path])
		}
		if slices.Contains(c.Differs, banger.DiffersContent) {
			contents++
		}
		if c.Change == banger.FileChanged && !slices.Contains(c.Differs, banger.DiffersType) {
			patches.WriteString(c.Patch)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d changes instead of %d: %+v, %q", len(got), len(want), got, want)
	}
	out, _ := exec.Command("diff", "-rq", "--no-dereference", root, s.merged("after")).Output()
	if n := strings.Count(string(out), "Files "); n != contents {
		t.Errorf("diff finds %d files with another content, and we %d:\n%s", n, contents, out)
	}
	copied := filepath.Join(s.base, "patched")
	check(t, os.RemoveAll(copied))
	check(t, exec.Command("cp", "-a", root, copied).Run())
	apply := exec.Command("patch", "-p1", "-s", "--no-backup-if-mismatch")
	apply.Dir, apply.Stdin = copied, strings.NewReader(patches.String())
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("patch: %v: %s", err, out)
	}
	if out, _ := exec.Command("diff", "-rq", "--no-dereference", copied, s.merged("after")).Output(); strings.Contains(
		string(out), "Files ") {
		t.Errorf("patch makes something else of it:\n%s", out)
	}
}

// TestHoles: a hole is zeros, a large sparse file is compared at once, and one byte in it is found.
func TestHoles(t *testing.T) {
	s := makeTrees(t, func(image string) {
		for _, name := range []string{"hole", "zeros", "byte"} {
			write(t, filepath.Join(image, name), "")
		}
		check(t, os.Truncate(filepath.Join(image, "zeros"), 2<<20))
		for _, name := range []string{"hole", "byte"} {
			check(t, os.Truncate(filepath.Join(image, name), 1<<40))
		}
	})
	in := func(name string) string { return filepath.Join(s.upper("after"), name) }
	write(t, in("zeros"), string(make([]byte, 2<<20)))
	for _, name := range []string{"hole", "byte"} {
		write(t, in(name), "")
		check(t, os.Truncate(in(name), 1<<40))
	}
	f, err := os.OpenFile(in("byte"), os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte{1}, 1<<39)
	check(t, errors.Join(err, f.Close()))
	got := s.compare(Options{After: s.upper("after"), Patch: true})
	if len(got) != 1 || words(got["/byte"]) != "changed content" || !got["/byte"].Binary {
		t.Errorf("the changes are %+v", got)
	}
}

// TestHostileTrees: what a guest may do to its disk harms nobody, and each limit has a sentence.
func TestHostileTrees(t *testing.T) {
	s := makeTrees(t, func(image string) { write(t, filepath.Join(image, "dir/file"), "x\n") })
	in := func(name string) string { return filepath.Join(s.upper("after"), name) }
	write(t, in("long"), strings.Repeat("a line\n", 20))
	check(t, os.Mkdir(in("many"), 0o755))
	for i := range 30 {
		write(t, in(fmt.Sprintf("many/%0100d", i)), "")
	}
	deep := "deep" + strings.Repeat("/d", 40)
	check(t, os.MkdirAll(in(deep), 0o755))
	check(t, os.Symlink("/", in("dir"))) // a way out, where the image has a directory
	check(t, unix.Mkfifo(in("pipe"), 0o600))
	check(t, os.Mkdir(in("moved"), 0o755))
	check(t, unix.Setxattr(in("moved"), "trusted.overlay.redirect", []byte("/dir"), 0))
	limits := Limits{Names: 2000, Depth: 20, Text: 1 << 20, Lines: 10}
	got := s.compare(Options{After: s.upper("after"), Patch: true, Limits: limits})
	for path, want := range map[string]string{
		"/many": "added", "/many/": "changed it has too many files", "/dir": "changed type mode", "/dir/file": "removed",
		"/pipe":                                  "added",
		"/moved":                                 "changed " + errRefers.Error(),
		"/deep" + strings.Repeat("/d", 20) + "/": "changed it has too many directories above it"} {
		if words(got[path]) != want {
			t.Errorf("%q is %q, not %q", path, words(got[path]), want)
		}
	}
	if c := got["/long"]; !c.Binary || c.Patch != "" {
		t.Errorf("too many lines are compared: %+v", c)
	}
	limits.Entries = 5
	o := Options{Image: s.image(), After: s.upper("after"), Limits: limits}
	err := Trees(t.Context(), o, func(banger.FileChange) error { return nil })
	if banger.CodeOf(err) != banger.CodeGuest || !strings.Contains(err.Error(), "more than 5") {
		t.Errorf("too many files: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Trees(ctx, o, func(banger.FileChange) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	root := filepath.Join(s.base, "root")
	check(t, os.Symlink("/", root))
	o.After = root
	if err := Trees(t.Context(), o, func(banger.FileChange) error { return nil }); err == nil {
		t.Error("an upper directory that is a symlink is followed")
	}
}
