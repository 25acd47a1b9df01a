package workspace

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// is checks which entries were sent.
func (s sent) is(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(s.names, want) {
		t.Errorf("sent are %q instead of %q", s.names, want)
	}
}

var all = guest.WorkspaceRequest{Name: "box"}

// TestEachKindOfChange makes a change of each kind.
func TestEachKindOfChange(t *testing.T) {
	w := newWorld(t)
	w.make("box", map[string]string{"touched": "1", "same": "1", "owner": "1", "text": "1", "mode": "1", "gone": "1",
		"kind": "1", "other": "1", "tree/a/b": "1", "tree/c": "1", "again/old": "1", "again/kept": "1", "dir/in": "1",
		"fifo": "1", "linked": "1", "moved/sub/file": "1", "still": "1"})
	at := func(name string) string { return w.path("box/" + name) }
	check(t, os.Chtimes(at("touched"), time.Time{}, time.Now()))
	write(t, at("same"), "1")
	check(t, os.Chown(at("owner"), 5, 5))
	write(t, at("text"), "2")
	check(t, os.Chmod(at("mode"), 0o755))
	check(t, os.Remove(at("gone")))
	check(t, os.Remove(at("kind")))
	write(t, at("kind/new"), "2")
	check(t, os.Remove(at("other")))
	check(t, os.Symlink("text", at("other")))
	check(t, os.RemoveAll(at("tree")))
	check(t, os.RemoveAll(at("again")))
	write(t, at("again/kept"), "1")
	check(t, os.Chmod(at("dir"), 0o700))
	check(t, os.Remove(at("fifo")))
	check(t, unix.Mkfifo(at("fifo"), 0o644))
	check(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(t, os.Link(at("linked"), at("linked2")))
	if err := os.Rename(at("moved"), at("to")); !errors.Is(err, unix.EXDEV) { // mv(1) then copies
		t.Errorf("a rename of a directory of the baseline: %v", err)
	}
	check(t, os.CopyFS(at("to"), os.DirFS(at("moved"))))
	check(t, os.RemoveAll(at("moved")))
	write(t, at("new \n\x1b\xff"), "")
	check(t, os.Mkdir(at("empty"), 0o711))
	write(t, at(".wh.still"), "a trap")
	check(t, os.Symlink("/etc", at("out")))
	s := w.changes(all)
	s.is(t, "again/", "again/.wh..wh..opq", "again/kept", "dir/", "empty/", ".wh.fifo", ".wh.gone", "kind/", "kind/new",
		"linked2", "mode", ".wh.moved", "new \n\x1b\xff", "other", "out", "text", "to/", "to/sub/", "to/sub/file",
		".wh.tree")
	if s.Skipped != 3 || len(s.Notes) != 3 || s.Bytes != 6 {
		t.Errorf("the report is %+v", s.WorkspaceReport)
	}
	if s.texts["linked2"] != "1" || s.heads["linked2"].Typeflag != tar.TypeReg {
		t.Errorf("another name of a file is %+v", s.heads["linked2"])
	}
	if s.heads["mode"].Mode != 0o755 || s.heads["empty/"].Mode != 0o711 || s.heads["other"].Linkname != "text" {
		t.Errorf("they are %+v, %+v, %+v", s.heads["mode"], s.heads["empty/"], s.heads["other"])
	}
	if w.changes(guest.WorkspaceRequest{Name: "box", Part: guest.PartGit}).Entries != 0 {
		t.Error("a workspace without a repository has parts of one")
	}
	_, err := w.Reset("box")
	check(t, err)
	w.changes(all).is(t)
}

// TestIgnoredFilesStay checks which rules count, and that what is tracked is sent all the same.
func TestIgnoredFilesStay(t *testing.T) {
	w := newWorld(t)
	w.make("box", map[string]string{".gitignore": "*.o\nbuild/\n", "tracked.o": "1", "build/tracked": "1", "sub/x": "1",
		"sub/.gitignore": "!keep.o\n", "old": "1", "was/file": "1", "was2/file": "1"})
	at := func(name string) string { return w.path("box/" + name) }
	for _, name := range []string{"tracked.o", "new.o", "build/tracked", "build/new", "build/sub/new", "sub/keep.o",
		"sub/new.o", "later.o", "cache/later/file", "cache/other", "kept"} {
		write(t, at(name), "2")
	}
	check(t, os.Remove(at("old")))
	write(t, at("old/x"), "2") // both are ignored by the request
	check(t, os.RemoveAll(at("was")))
	write(t, at("was"), "2")
	check(t, os.RemoveAll(at("was2")))
	write(t, at("was2/new"), "2")
	r := guest.WorkspaceRequest{Name: "box", Ignore: []byte("cache\nold/\nwas\nwas2/\nkeep.o\n")}
	s := w.changes(r, "later.o", "cache/later/file", "nonesuch")
	s.is(t, "build/tracked", "cache/", "cache/later/", "cache/later/file", "kept", "later.o", ".wh.old", "sub/keep.o",
		"tracked.o", ".wh.was", "was2/", "was2/.wh..wh..opq")
	if s.Skipped > 0 {
		t.Errorf("the report is %+v", s.WorkspaceReport)
	}
	write(t, at(".gitignore"), "kept\n") // the guest's rules take the place of the baseline's
	got := w.changes(r)
	if got.heads["new.o"] == nil || got.heads["build/sub/new"] == nil || got.heads["kept"] != nil {
		t.Errorf("with other rules are sent %q", got.names)
	}
	check(t, os.Remove(at(".gitignore")))
	check(t, os.Symlink("/etc/hostname", at(".gitignore")))
	if got := w.changes(r); got.heads["kept"] == nil || got.heads[".gitignore"].Linkname != "/etc/hostname" {
		t.Errorf("with a symlink for rules are sent %q", got.names)
	}
	check(t, os.Remove(at(".gitignore")))
	write(t, at(".gitignore"), "*\n"+strings.Repeat("#", maxRules))
	if got := w.changes(r); got.heads["kept"] == nil || got.Skipped != 1 {
		t.Errorf("with too many rules are sent %q, %+v", got.names, got.WorkspaceReport)
	}
}

// TestPartsOfARepository checks what is sent of a .git, and that nothing else of it ever is.
func TestPartsOfARepository(t *testing.T) {
	w := newWorld(t)
	tree := t.TempDir()
	git(t, tree, "init", "-q", "-b", "main")
	write(t, filepath.Join(tree, "file"), "1")
	git(t, tree, "add", "-A")
	git(t, tree, "commit", "-q", "-m", "one")
	git(t, tree, "branch", "gone")
	write(t, filepath.Join(tree, "gitlink/.git"), "gitdir: ../.git/modules/x")
	_, err := w.try(w.new("box"), stdin(t, pack(t, tree, "2000", "8M")))
	check(t, err)
	box := w.path("box")
	write(t, filepath.Join(box, "file"), "2")
	git(t, box, "commit", "-q", "-a", "-m", "two")
	git(t, box, "branch", "-D", "gone")
	git(t, box, "tag", "v1")
	write(t, filepath.Join(box, ".git/packed-refs"), "# pack-refs with: peeled fully-peeled sorted\n")
	git(t, box, "config", "core.fsmonitor", "/bin/evil")
	write(t, filepath.Join(box, ".git/hooks/post-checkout"), "evil")
	write(t, filepath.Join(box, ".git/objects/info/alternates"), "/root/secrets")
	write(t, filepath.Join(box, ".git/modules/x/HEAD"), "evil")
	write(t, filepath.Join(box, ".git/refs/heads/.wh.main"), "a trap")
	check(t, os.Symlink("/etc/passwd", filepath.Join(box, ".git/shallow")))
	write(t, filepath.Join(box, "gitlink/.git"), "gitdir: /root")
	write(t, filepath.Join(box, "link2/.git"), "gitdir: /root")
	write(t, filepath.Join(box, "nested/.git/HEAD"), "ref: refs/heads/x")
	write(t, filepath.Join(box, "nested/.git/config"), "evil")
	write(t, filepath.Join(box, "nested/file"), "1")
	s := w.changes(guest.WorkspaceRequest{Name: "box", Part: guest.PartGit})
	objects := 0
	var rest []string
	for _, name := range s.names {
		if strings.HasPrefix(name, ".git/objects/") && len(name) == len(".git/objects/00/")+38 {
			objects++
			continue
		}
		rest = append(rest, name)
	}
	want := []string{".git/refs/heads/.wh.gone", ".git/refs/heads/main", ".git/refs/tags/v1", ".git/packed-refs",
		"nested/.git/HEAD"}
	if !slices.Equal(rest, want) || objects != 3 || s.Skipped != 3 {
		t.Errorf("sent are %q and %d objects, %+v", rest, objects, s.WorkspaceReport)
	}
	if i := slices.Index(s.names, ".git/packed-refs"); !strings.HasPrefix(s.names[i+1], ".git/objects/") {
		t.Errorf("objects come before refs: %q", s.names)
	}
	w.changes(guest.WorkspaceRequest{Name: "box", Part: guest.PartTree}).is(t, "file", "link2/", "nested/",
		"nested/file")
	if both := w.changes(all); both.Entries != s.Entries+4 {
		t.Errorf("both parts are %q", both.names)
	}
	check(t, os.RemoveAll(filepath.Join(box, ".git")))
	git(t, box, "init", "-q", "-b", "other")
	again := w.changes(guest.WorkspaceRequest{Name: "box", Part: guest.PartGit})
	again.is(t, ".git/.wh..wh..opq", ".git/HEAD", "nested/.git/HEAD")
	check(t, os.RemoveAll(filepath.Join(box, ".git")))
	w.changes(guest.WorkspaceRequest{Name: "box", Part: guest.PartGit}).is(t, ".wh..git", "nested/.git/HEAD")
	write(t, filepath.Join(box, ".git"), "gitdir: /root")
	w.changes(guest.WorkspaceRequest{Name: "box", Part: guest.PartGit}).is(t, ".wh..git", "nested/.git/HEAD")
}

// TestHostileTrees checks that what a guest may do to a tree harms nobody.
func TestHostileTrees(t *testing.T) {
	w := newWorld(t)
	w.make("box", map[string]string{"dir/file": "1", "file": "1"})
	upper := func(name string) string { return filepath.Join(w.dir, id("box"), "1/upper", name) }
	write(t, upper("deep"+strings.Repeat("/d", maxDepth+20)+"/file"), "")
	check(t, os.Symlink("/", upper("dir"))) // a way out, where the baseline has a directory
	write(t, upper("moved/file"), "")
	check(t, unix.Setxattr(upper("moved"), "trusted.overlay.redirect", []byte("/dir"), 0))
	write(t, upper("huge"), "")
	check(t, os.Truncate(upper("huge"), guest.MaxImage+1))
	write(t, upper(strings.Repeat("n", 250)+"/.gitignore"), "[")
	s := w.changes(all)
	for _, words := range []string{"directories above", "refers to the baseline", "too large"} {
		if !slices.ContainsFunc(s.Notes, func(note string) bool { return strings.Contains(note, words) }) {
			t.Errorf("no note says %q: %q", words, s.Notes)
		}
	}
	if s.heads["dir"].Linkname != "/" || s.Skipped != 3 || s.heads["dir/file"] != nil {
		t.Errorf("sent are %q, %+v", s.names, s.WorkspaceReport)
	}
	for i := range 2 * maxNotes {
		check(t, unix.Mkfifo(upper(fmt.Sprintf("%0200d", i)), 0o600))
	}
	if s := w.changes(all); s.Skipped != 3+2*maxNotes || len(s.Notes) != maxNotes {
		t.Errorf("the report has %d notes for %d files", len(s.Notes), s.Skipped)
	}
}

// TestWhatAClientMayNotAsk checks the bounds of a request.
func TestWhatAClientMayNotAsk(t *testing.T) {
	w := newWorld(t)
	w.make("box", nil)
	short := stdin(t, []byte("a\x00"))
	short.Truncate(short.Len() - frame.Header)
	for name, tt := range map[string]struct {
		r      guest.WorkspaceRequest
		frames *bytes.Buffer
		code   banger.Code
	}{
		"another part": {guest.WorkspaceRequest{Name: "box", Part: "all"}, nil, banger.CodeInvalid},
		"too many rules": {guest.WorkspaceRequest{Name: "box", Ignore: make([]byte, guest.MaxIgnore+1)}, nil,
			banger.CodeInvalid},
		"too long a list":   {all, stdin(t, bytes.Repeat([]byte("a"), guest.MaxTracked+1)), banger.CodeInvalid},
		"too many paths":    {all, stdin(t, bytes.Repeat([]byte("\x00"), maxTracked+1)), banger.CodeInvalid},
		"a client that end": {all, short, banger.CodeCanceled},
		"no workspace":      {guest.WorkspaceRequest{Name: "nonesuch"}, nil, banger.CodeNotFound},
	} {
		if tt.frames == nil {
			tt.frames = stdin(t, nil)
		}
		_, err := w.Changes(t.Context(), io.Discard, frame.NewReader(tt.frames), tt.r)
		if banger.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, w.path("box/file"), "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Changes(ctx, io.Discard, frame.NewReader(stdin(t, nil)), all); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

// during calls do at the first write.
type during struct{ do func() }

func (d *during) Write(p []byte) (int, error) {
	if d.do != nil {
		d.do()
		d.do = nil
	}
	return len(p), nil
}

// TestAResetWhileChangesAreRead checks that changes of two trees are not taken for one.
func TestAResetWhileChangesAreRead(t *testing.T) {
	w := newWorld(t)
	w.make("box", nil)
	for i := range 9 {
		write(t, w.path(fmt.Sprintf("box/%d", i)), strings.Repeat("x", 200<<10))
	}
	out := &during{func() {
		_, err := w.Reset("box")
		check(t, err)
	}}
	_, err := w.Changes(t.Context(), out, frame.NewReader(stdin(t, nil)), all)
	if banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), "was reset") {
		t.Errorf("the error is %v", err)
	}
}

// TestFilesThatChangeMeanwhile checks that a tar is whole, and that the report tells what was in motion.
func TestFilesThatChangeMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.make("box", map[string]string{"base": "1"})
	at := func(name string) string { return w.path("box/" + name) }
	for _, name := range []string{"a", "b", "c", "d"} {
		write(t, at(name), strings.Repeat("x", 700<<10))
	}
	out := &bytes.Buffer{}
	first := &during{func() {
		check(t, os.Truncate(at("a"), 10))
		check(t, os.Remove(at("b")))
		write(t, at("c"), strings.Repeat("y", 800<<10))
	}}
	report, err := w.Changes(t.Context(), io.MultiWriter(first, out), frame.NewReader(stdin(t, nil)), all)
	check(t, err)
	if report.Skipped < 1 || !strings.Contains(strings.Join(report.Notes, "\n"), `"a": it changed`) {
		t.Errorf("the report is %+v", report)
	}
	in := tar.NewReader(&payloads{frames: frame.NewReader(out)})
	sizes := map[string]int64{}
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		n, err := io.Copy(io.Discard, in)
		check(t, err)
		sizes[h.Name] = n
	}
	if sizes["a"] != 700<<10 || sizes["c"] != 800<<10 || sizes["d"] != 700<<10 || sizes["b"] != 0 {
		t.Errorf("the sizes are %v", sizes)
	}
}

// TestTenThousandFiles checks that many files take neither long nor much memory.
func TestTenThousandFiles(t *testing.T) {
	w := newWorld(t)
	tree := t.TempDir()
	for i := range 10_000 {
		write(t, filepath.Join(tree, fmt.Sprintf("%02d/%04d", i%100, i)), fmt.Sprint(i))
	}
	_, err := w.try(w.new("box"), stdin(t, pack(t, tree, "30000", "64M")))
	check(t, err)
	for i := range 10_000 {
		text := fmt.Sprint(i)
		if i%10 == 0 {
			text = strings.Repeat("0", len(text))
		}
		write(t, filepath.Join(w.dir, id("box"), "1/upper", fmt.Sprintf("%02d/%04d", i%100, i)), text) // as copied up
	}
	began := time.Now()
	s := w.changes(all)
	if s.Entries != 999 && s.Entries != 1000 || time.Since(began) > 20*time.Second {
		t.Errorf("after %s there are %d changes", time.Since(began), s.Entries)
	}
	t.Logf("%d changes of 10,000 files took %s", s.Entries, time.Since(began))
}
