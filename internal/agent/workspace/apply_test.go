package workspace

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// sent is what came of a workspace's changes.
type sent struct {
	banger.WorkspaceReport
	names []string          // in their order
	texts map[string]string // of regular files
	heads map[string]*tar.Header
}

// changes reads the changes of a workspace.
func (w *world) changes(r guest.WorkspaceRequest, tracked ...string) sent {
	w.t.Helper()
	var out bytes.Buffer
	list := ""
	for _, path := range tracked {
		list += path + "\x00"
	}
	report, err := w.Changes(w.t.Context(), &out, frame.NewReader(stdin(w.t, []byte(list))), r)
	check(w.t, err)
	s := sent{report, nil, map[string]string{}, map[string]*tar.Header{}}
	in := tar.NewReader(&payloads{frames: frame.NewReader(&out)})
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(w.t, err)
		data, err := io.ReadAll(in)
		check(w.t, err)
		if s.heads[h.Name] != nil {
			w.t.Errorf("%q is there twice", h.Name)
		}
		s.names, s.heads[h.Name], s.texts[h.Name] = append(s.names, h.Name), h, string(data)
	}
	if int64(len(s.names)) != s.Entries {
		w.t.Errorf("there are %d entries, but the report says %+v", len(s.names), s.WorkspaceReport)
	}
	return s
}

// payloads reads the payloads of frames.
type payloads struct {
	frames *frame.Reader
	left   []byte
}

func (p *payloads) Read(b []byte) (int, error) {
	for len(p.left) == 0 {
		kind, data, err := p.frames.Next()
		if err != nil || kind != frame.Stdout {
			return 0, io.EOF
		}
		p.left = data
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

// apply makes the changes in a tree, as one does who knows layers.
func (s sent) apply(t *testing.T, root string) {
	t.Helper()
	for _, name := range s.names {
		h, at := s.heads[name], filepath.Join(root, name)
		base := filepath.Base(name)
		if base == ".wh..wh..opq" {
			entries, err := os.ReadDir(filepath.Dir(at))
			check(t, err)
			for _, e := range entries {
				check(t, os.RemoveAll(filepath.Join(filepath.Dir(at), e.Name())))
			}
			continue
		}
		if gone, ok := strings.CutPrefix(base, ".wh."); ok {
			gone = filepath.Join(filepath.Dir(at), gone)
			if _, err := os.Lstat(gone); err != nil {
				t.Errorf("%q marks what is not there", name)
			}
			check(t, os.RemoveAll(gone))
			continue
		}
		st, err := os.Lstat(at)
		if err == nil && !(st.IsDir() && h.Typeflag == tar.TypeDir) {
			check(t, os.RemoveAll(at))
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
			check(t, os.Chmod(at, h.FileInfo().Mode()))
		case tar.TypeReg:
			check(t, os.WriteFile(at, []byte(s.texts[name]), 0o600))
			check(t, os.Chmod(at, h.FileInfo().Mode()))
		case tar.TypeSymlink:
			check(t, os.Symlink(h.Linkname, at))
		default:
			t.Errorf("%q is a %c", name, h.Typeflag)
		}
	}
}

// describe lists a tree, without lost+found.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		check(t, err)
		if d.Name() == "lost+found" {
			return filepath.SkipDir
		}
		if path == root {
			return nil
		}
		var st unix.Stat_t
		check(t, unix.Lstat(path, &st))
		shown := fmt.Sprintf("%o", st.Mode)
		switch {
		case d.Type().IsRegular():
			shown += fmt.Sprintf(" %x", sha256.Sum256([]byte(read(t, path))))
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

// work makes random changes below a directory.
func work(r *rand.Rand, root string, times int) {
	name := func() string {
		path := root
		for range 1 + r.IntN(3) {
			path = filepath.Join(path, string(rune('a'+r.IntN(4))))
		}
		return path
	}
	for range times {
		path := name()
		switch r.IntN(11) { // errors are as good as successes: what became of it is looked at
		case 0, 1:
			os.MkdirAll(path, 0o755)
		case 2, 3, 4:
			os.MkdirAll(filepath.Dir(path), 0o755)
			os.WriteFile(path, []byte(fmt.Sprint(r.IntN(3))), 0o644)
		case 5, 6:
			os.RemoveAll(path)
		case 7:
			os.Rename(path, name())
		case 8:
			os.Symlink(fmt.Sprint(r.IntN(3)), path)
		case 9:
			if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink == 0 {
				os.Chmod(path, fs.FileMode(0o700+r.IntN(64)))
			}
		case 10:
			os.Link(path, name())
		}
	}
}

// copyOf copies a tree.
func copyOf(t *testing.T, tree string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", tree, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return to
}

// TestRandomChangesMakeTheSameTree applies the changes of a workspace to a copy of its baseline.
func TestRandomChangesMakeTheSameTree(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w, r := newWorld(t), rand.New(rand.NewPCG(seed, 3))
			tree := t.TempDir()
			work(r, tree, 60)
			before := copyOf(t, tree)
			_, err := w.try(w.new("box"), stdin(t, pack(t, tree, "2000", "8M")))
			check(t, err)
			for range 1 + r.IntN(3) { // some changes are made after a boot
				work(r, w.path("box"), r.IntN(25))
				w.boot()
			}
			s := w.changes(guest.WorkspaceRequest{Name: "box"})
			if s.Skipped > 0 {
				t.Errorf("the report is %+v", s.WorkspaceReport)
			}
			was := describe(t, before)
			s.apply(t, before)
			got, want := describe(t, before), describe(t, w.path("box"))
			for path, shown := range want {
				if got[path] != shown {
					t.Errorf("%s is %q instead of %q", path, got[path], shown)
				}
			}
			if len(got) != len(want) {
				t.Errorf("there are %d files instead of %d: %q", len(got), len(want), s.names)
			}
			opaque := slices.ContainsFunc(s.names, func(n string) bool { return strings.HasSuffix(n, ".wh..wh..opq") })
			for _, name := range s.names { // nothing is sent that is no change
				path := "/" + strings.TrimSuffix(name, "/")
				if was[path] != "" && was[path] == got[path] && !opaque {
					t.Errorf("%s is sent, and has not changed", name)
				}
			}
		})
	}
}

// git runs git in a work tree.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a",
		"GIT_AUTHOR_EMAIL=a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return string(out)
}

// TestGitAddsTheSame makes random changes with random rules of what is ignored in a repository, and applies what is
// sent to a copy of it. There, git must add with force what it adds in the workspace without.
func TestGitAddsTheSame(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w, r := newWorld(t), rand.New(rand.NewPCG(seed, 5))
			rules := func(dir string) {
				text := ""
				for range 1 + r.IntN(4) {
					list := []string{"a", "/a", "b/", "*", "!c", "a/*", "**/d", "!a/b", "a/b/", "c/", "!*/", "d*", "/b/c", "!d"}
					text += list[r.IntN(len(list))] + "\n"
				}
				os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(text), 0o644) // where there is such a directory
			}
			tree := t.TempDir()
			git(t, tree, "init", "-q")
			work(r, tree, 40)
			rules(tree)
			rules(filepath.Join(tree, "a"))
			git(t, tree, "add", "-A", "-f")
			git(t, tree, "commit", "-q", "--allow-empty", "-m", "baseline")
			host := copyOf(t, tree)
			_, err := w.try(w.new("box"), stdin(t, pack(t, tree, "2000", "8M")))
			check(t, err)
			box := w.path("box")
			work(r, box, 25)
			if r.IntN(2) == 0 {
				rules(box)
			}
			rules(filepath.Join(box, "b"))
			global := []string{"", "a\n", "d\n!b\n", "/c\n"}[r.IntN(4)]
			check(t, os.WriteFile(filepath.Join(box, ".git/info/exclude"), []byte(global), 0o644))
			w.changes(guest.WorkspaceRequest{Name: "box", Part: guest.PartTree, Ignore: []byte(global)}).apply(t, host)
			git(t, host, "add", "-A", "-f")
			git(t, box, "add", "-A")
			if got, want := git(t, host, "write-tree"), git(t, box, "write-tree"); got != want {
				t.Errorf("the trees differ:\n%s\n%s", git(t, host, "ls-tree", "-r", strings.TrimSpace(got)),
					git(t, box, "ls-tree", "-r", strings.TrimSpace(want)))
			}
		})
	}
}
