package secret

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func values(pairs ...string) map[string][]byte {
	m := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = []byte(pairs[i+1])
	}
	return m
}

// TestSecretsAreFilesOfOneUser: their modes do not depend on the umask, and a new value takes the place of an old one.
func TestSecretsAreFilesOfOneUser(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := filepath.Join(t.TempDir(), "run", "secrets")
	s := New(dir, nil)
	check(t, s.Remove([]string{"A"})) // before the first secret and its directory
	check(t, s.Set(nil, ""))
	if _, err := os.Stat(dir); err == nil {
		t.Error("there is a directory without a secret")
	}
	check(t, s.Set(values("A", "one", "B", "two"), "12:34"))
	var old []*os.File
	for _, name := range []string{"A", "B"} {
		f, err := os.Open(filepath.Join(dir, name))
		check(t, err)
		defer f.Close()
		old = append(old, f)
	}
	check(t, s.Set(values("A", "three"), "12:34"))
	check(t, s.Remove([]string{"B", "C"}))
	for _, f := range old {
		if data, err := io.ReadAll(f); string(data) != "\x00\x00\x00" || err != nil {
			t.Errorf("what was there still has %q, %v", data, err)
		}
	}
	entries, err := os.ReadDir(dir)
	check(t, err)
	var st unix.Stat_t
	check(t, unix.Stat(filepath.Join(dir, "A"), &st))
	if len(entries) != 1 || st.Mode != unix.S_IFREG|0o400 {
		t.Errorf("there are %v, with the mode %o", entries, st.Mode)
	}
	if os.Geteuid() == 0 && (st.Uid != 12 || st.Gid != 34) {
		t.Errorf("it belongs to %d:%d", st.Uid, st.Gid)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "A")); string(data) != "three" || err != nil {
		t.Errorf("it has %q, %v", data, err)
	}
	check(t, s.Set(values("A", "four"), "nobody-of-that-name")) // it belongs to root
	for _, name := range []string{"", ".", "..", "a/b", "../a"} {
		if s.Set(values(name, ""), "") == nil || s.Remove([]string{name}) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

// TestSecretsBecomeVariables in place of those that a command would have, and an absent one is an error.
func TestSecretsBecomeVariables(t *testing.T) {
	s := New(t.TempDir(), nil)
	env := []string{"A=old", "PATH=/bin", "AB=1"}
	if got, err := s.Environment(env, nil); !slices.Equal(got, env) || err != nil {
		t.Errorf("without secrets it is %q, %v", got, err)
	}
	if _, err := s.Environment(env, []string{"A"}); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("before the first one: %v", err)
	}
	check(t, s.Set(values("A", "new\nline\n", "NUL", "a\x00b"), ""))
	got, err := s.Environment(env, []string{"A"})
	if want := []string{"PATH=/bin", "AB=1", "A=new\nline"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("it is %q, %v", got, err)
	}
	for name, code := range map[string]banger.Code{"B": banger.CodeConflict, "../A": banger.CodeConflict,
		"NUL": banger.CodeCannotRun} {
		if _, err := s.Environment(env, []string{name}); banger.CodeOf(err) != code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatAGuestPutsInTheirPlace blocks nobody, and is neither followed nor kept.
func TestWhatAGuestPutsInTheirPlace(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a pipe":       func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":  func(path string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o700) },
		"a link":       func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a large file": func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
	} {
		dir := t.TempDir()
		s := New(dir, nil)
		check(t, s.Set(values("A", "value"), ""))
		check(t, os.Remove(filepath.Join(dir, "A")))
		check(t, put(filepath.Join(dir, "A")))
		check(t, put(filepath.Join(dir, ".A")))
		if env, err := s.Environment(nil, []string{"A"}); err == nil && env[0] != "A=" {
			t.Errorf("%s: a command gets %.80q", name, env)
		}
		check(t, s.Remove([]string{"A"}))
		check(t, s.Set(values("A", "again"), ""))
		if env, err := s.Environment(nil, []string{"A"}); err != nil || env[0] != "A=again" {
			t.Errorf("%s: then a command gets %.80q, %v", name, env, err)
		}
	}
}

// TestTheFileSystemIsInMemory and nothing runs from there. Where something is mounted over it, it is shown again.
func TestTheFileSystemIsInMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	run := t.TempDir()
	dir := filepath.Join(run, "secrets")
	s := New(dir, Mount)
	t.Cleanup(func() {
		s.dir.Close()
		s.root.Close()
		for _, path := range []string{dir, run, dir} {
			unix.Unmount(path, unix.MNT_DETACH)
		}
	})
	check(t, s.Set(values("A", "one"), ""))
	var fs unix.Statfs_t
	check(t, unix.Statfs(dir, &fs))
	if want := int64(unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC); fs.Type != unix.TMPFS_MAGIC ||
		fs.Flags&want != want || fs.Blocks*uint64(fs.Bsize) > 4<<20 {
		t.Errorf("it is %+v", fs)
	}
	check(t, unix.Mount("tmpfs", run, "tmpfs", 0, ""))
	if _, err := os.Stat(filepath.Join(dir, "A")); err == nil {
		t.Fatal("it is not hidden")
	}
	_, err := s.Environment(nil, nil)
	check(t, err)
	if data, err := os.ReadFile(filepath.Join(dir, "A")); string(data) != "one" || err != nil {
		t.Errorf("it is not shown again: %q, %v", data, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	_, err = s.Environment(nil, nil)
	check(t, err)
	again, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	if strings.Count(string(again), dir) != strings.Count(string(mounts), dir) {
		t.Error("it is mounted for each command")
	}
}
