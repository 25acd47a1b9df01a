package untrusted

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// traps are what a hostile VMM may put in a file's place. Each returns a file of ours that must not change.
var traps = map[string]func(t *testing.T, path string) (ours string){
	"a symlink to a file": func(t *testing.T, path string) string {
		ours := oursFile(t)
		check(t, os.Symlink(ours, path))
		return ours
	},
	"a symlink to nothing": func(t *testing.T, path string) string {
		ours := oursFile(t)
		check(t, os.Symlink(ours+".new", path))
		return ours
	},
	"a second name of a file": func(t *testing.T, path string) string {
		ours := filepath.Join(filepath.Dir(filepath.Dir(path)), "ours")
		check(t, os.WriteFile(ours, []byte("ours"), 0o600))
		check(t, os.Link(ours, path))
		return ours
	},
	"a pipe": func(t *testing.T, path string) string {
		check(t, unix.Mkfifo(path, 0o666))
		return oursFile(t)
	},
	"a socket": func(t *testing.T, path string) string {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		check(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
		return oursFile(t)
	},
	"a directory": func(t *testing.T, path string) string {
		check(t, os.MkdirAll(filepath.Join(path, "a", "b"), 0o755))
		check(t, os.WriteFile(filepath.Join(path, "a", "c"), nil, 0o644))
		return oursFile(t)
	},
	"a symlink to a directory": func(t *testing.T, path string) string {
		ours := oursFile(t)
		check(t, os.Symlink(filepath.Dir(ours), path))
		return ours
	},
}

func oursFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ours")
	check(t, os.WriteFile(path, []byte("ours"), 0o600))
	return path
}

// wantOurs checks that a file has not changed, and is alone in its directory.
func wantOurs(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Stat(path, &st))
	data, err := os.ReadFile(path)
	check(t, err)
	if string(data) != "ours" || st.Mode != unix.S_IFREG|0o600 || int(st.Uid) != os.Geteuid() {
		t.Errorf("the file of ours has the content %q, the mode %#o and the owner %d", data, st.Mode, st.Uid)
	}
	if _, err := os.Lstat(path + ".new"); err == nil {
		t.Error("a file was made beside that of ours")
	}
}

// within fails the test if f takes long.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }() // after a fault it may outlive the test
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it hangs")
	}
}

func TestTrapsAreNotOpened(t *testing.T) {
	for name, set := range traps {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			ours := set(t, path)
			within(t, func() {
				const create = os.O_RDWR | os.O_CREATE
				for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, create, create | os.O_APPEND} {
					if f, err := Open(path, flag, 0o600); err == nil {
						f.Close()
						t.Errorf("it is opened with %#o", flag)
					}
				}
				if data, err := ReadFile(path, 1<<20); err == nil {
					t.Errorf("%q is read", data)
				}
			})
			wantOurs(t, ours)
		})
	}
}

func TestAFileTakesThePlaceOfATrap(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	for name, set := range traps {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			ours := set(t, path)
			within(t, func() { check(t, WriteFile(path, []byte("new"), 0o644)) })
			wantOurs(t, ours)
			info, err := os.Lstat(path)
			check(t, err)
			if data, err := ReadFile(path, 3); err != nil || string(data) != "new" || info.Mode() != 0o644 {
				t.Errorf("it holds %q with the mode %s: %v", data, info.Mode(), err)
			}
		})
	}
}

func TestWhatIsReadIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(path, nil, 0o600))
	check(t, os.Truncate(path, 3<<30))
	if data, err := ReadFile(path, 64<<10); err == nil || len(data) != 0 {
		t.Errorf("%d bytes are read: %v", len(data), err)
	}
}

func TestReclaimRemovesTraps(t *testing.T) {
	for name, set := range traps {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "vm")
			check(t, os.Mkdir(dir, 0o777))
			disk, path := filepath.Join(dir, "disk"), filepath.Join(dir, "file")
			check(t, os.WriteFile(disk, []byte("ours"), 0o600))
			ours := set(t, path)
			within(t, func() {
				if err := Reclaim(dir, "disk", "file"); err == nil {
					t.Error("a file that must be kept is missing, and nobody is told")
				}
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("what must be kept is gone: %v", err)
				}
				check(t, Reclaim(dir, "disk"))
			})
			wantOurs(t, ours)
			wantOurs(t, disk)
			if _, err := os.Lstat(path); err == nil {
				t.Error("it is still there")
			}
			info, err := os.Stat(dir)
			check(t, err)
			if info.Mode().Perm() != 0o700 {
				t.Errorf("the directory has the mode %s", info.Mode())
			}
		})
	}
}

// TestADirectoryIsGivenAndTakenBack needs root.
func TestADirectoryIsGivenAndTakenBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	dir := filepath.Join(t.TempDir(), "vm")
	check(t, os.Mkdir(dir, 0o700))
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	owner := func(path string) int {
		var st unix.Stat_t
		check(t, unix.Lstat(path, &st))
		return int(st.Uid)
	}
	check(t, Give(dir, 2_000_000_001, 2_000_000_001))
	if owner(dir) != 2_000_000_001 || owner(file) != 2_000_000_001 {
		t.Errorf("they belong to %d and %d", owner(dir), owner(file))
	}
	check(t, Reclaim(dir))
	if owner(dir) != 0 || owner(file) != 0 {
		t.Errorf("they belong to %d and %d", owner(dir), owner(file))
	}
}

// TestADeepTreeIsRemoved, although os.RemoveAll would need a descriptor for each level.
func TestADeepTreeIsRemoved(t *testing.T) {
	const depth = 1000
	top := filepath.Join(t.TempDir(), "vm")
	check(t, os.Mkdir(top, 0o700))
	at, err := unix.Open(top, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	check(t, err)
	for range depth {
		for _, name := range []string{"d", "removed.1"} {
			check(t, unix.Mkdirat(at, name, 0o700))
		}
		next, err := unix.Openat(at, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		check(t, err)
		unix.Close(at)
		at = next
	}
	unix.Close(at)
	var have unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &have))
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: have.Max}))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &have)
	within(t, func() { check(t, RemoveAll(top)) })
	if _, err := os.Lstat(top); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	check(t, RemoveAll(top))
}
