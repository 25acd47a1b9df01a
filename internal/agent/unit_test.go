package agent

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/agenttest"
	"banger/internal/guest"
)

const reaperProcess = "BANGER_TEST_REAPER"

// The reaper tells each child's end once, to its own listener, be the child ever
// so brief, and takes the ends of children that nobody asked about. Since it
// takes all ends in its process, it has one of its own here.
func TestReaper(t *testing.T) {
	if os.Getenv(reaperProcess) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestReaper$", "-test.v", "-test.count=1")
		cmd.Env = append(os.Environ(), reaperProcess+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestReaper")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	r := newReaper()
	attr := &syscall.ProcAttr{Env: []string{"PATH=" + defaultPath}}
	type end struct{ want, got int }
	ends := make(chan end, 100)
	var begun sync.WaitGroup
	for want := range cap(ends) {
		begun.Go(func() {
			_, err := r.start("/bin/sh", []string{"sh", "-c", "exit $1", "sh", string(rune('0' + want%10))}, attr,
				func(ws unix.WaitStatus) { ends <- end{want % 10, ws.ExitStatus()} })
			if err != nil {
				t.Error(err)
			}
		})
	}
	stranger, err := syscall.ForkExec("/bin/true", []string{"true"}, attr)
	if err != nil {
		t.Fatal(err)
	}
	go r.run() // lives on, as in the agent
	for range cap(ends) {
		if e := agenttest.Within(t, "a child's end is told", ends); e.got != e.want {
			t.Errorf("a child that exits with %d is told as %d", e.want, e.got)
		}
	}
	begun.Wait()
	agenttest.Await(t, "a stranger's end is taken", func() bool { return syscall.Kill(stranger, 0) == syscall.ESRCH })
	if _, err := r.start("/no/such", []string{"x"}, attr, func(unix.WaitStatus) { t.Error("what never began has ended") }); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a program that is absent gives %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.children) != 0 {
		t.Errorf("%d children are remembered after their end", len(r.children))
	}
}

// hostileRoot is an image whose links point out of it, next to a directory that
// must stay as it is.
func hostileRoot(t *testing.T) (root rootDir, outside string) {
	t.Helper()
	dir := t.TempDir()
	root, outside = rootDir(filepath.Join(dir, "root")), filepath.Join(dir, "outside")
	for _, d := range []string{string(root), outside, string(root) + "/real", string(root) + "/tree"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"absolute": outside, "relative": "../outside", "deep": "tree/../../../outside", "dangling": "/nowhere",
		"inside": "/real", "loop": "loop", "magic": "/proc/self/root" + outside,
		"tree/hosts": outside + "/hosts", "tree/hostname": "../../outside/hostname",
	} {
		if err := os.Symlink(target, filepath.Join(string(root), name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(outside); len(left) != 0 {
			t.Errorf("the image reached outside: %v", left)
		}
	})
	return root, outside
}

// Directories are made where an image's path leads within its root, or not at all.
func TestMkdirStaysInRoot(t *testing.T) {
	old := unix.Umask(0o077) // the mode asked for counts, not the umask
	defer unix.Umask(old)
	root, _ := hostileRoot(t)
	for name, want := range map[string]string{ // "" means an error
		"new":            "new",
		"a/b/c":          "a/b/c",
		"real/x":         "real/x",
		"inside/y":       "real/y",
		"../../up":       "up",
		"a/../../../o/z": "o/z",
		"loop/x":         "",
		"dangling":       "", // its target does not exist
		"magic/x":        "",
	} {
		fd, err := root.mkdir(name, 0o1777)
		if err == nil {
			unix.Close(fd)
		}
		if want == "" {
			if err == nil {
				t.Errorf("%s was made", name)
			}
			continue
		}
		fi, serr := os.Lstat(filepath.Join(string(root), want))
		if err != nil || serr != nil || fi.Mode() != os.ModeDir|os.ModeSticky|0o777 {
			t.Errorf("%s: %v, %v, %v", name, err, serr, fi)
		}
	}
	for _, name := range []string{"absolute/x", "relative/x", "deep/x"} {
		if fd, err := root.mkdir(name, 0o755); err == nil { // inside, if anywhere
			unix.Close(fd)
		}
	}
}

// A link in the place of a file is replaced, never followed.
func TestWriteFileStaysInRoot(t *testing.T) {
	root, _ := hostileRoot(t)
	for _, name := range []string{"tree/hosts", "tree/hostname", "tree/new", "etc/made/for/it", "real/.banger-x"} {
		for _, content := range []string{"one\n", "two\n"} {
			if err := root.writeFile(name, content); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			path := filepath.Join(string(root), name)
			fi, err := os.Lstat(path)
			got, _ := os.ReadFile(path)
			if err != nil || !fi.Mode().IsRegular() || !bytes.Equal(got, []byte(content)) {
				t.Errorf("%s holds %q, %v", name, got, err)
			}
		}
	}
	if err := root.writeFile("real", "x"); err == nil {
		t.Error("a directory was replaced by a file")
	}
	left, _ := filepath.Glob(string(root) + "/*/.banger-h*")
	if left2, _ := filepath.Glob(string(root) + "/.banger-*"); len(left)+len(left2) != 0 {
		t.Errorf("temporary files are left: %v %v", left, left2)
	}
}

func TestOpenStaysInRoot(t *testing.T) {
	root, outside := hostileRoot(t)
	secret := filepath.Join(filepath.Dir(outside), "secret")
	os.WriteFile(secret, []byte("s"), 0o644)
	for _, name := range []string{"../secret", "absolute/../secret", "relative/../secret", "/../../secret", secret, "magic/../secret"} {
		if fd, err := root.open(name, unix.O_RDONLY); err == nil {
			unix.Close(fd)
			t.Errorf("%s was opened", name)
		}
	}
	fd, err := root.open("inside", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if got, _ := os.Readlink(procPath(fd)); got != string(root)+"/real" {
		t.Errorf("a link within the root leads to %s", got)
	}
}

// The command's own PATH is searched, in its order; what cannot be executed
// counts only if nothing else is found.
func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o644, "b/tool": 0o755, "c/tool": 0o755, "a/only": 0o644, "c/dir/x": 0o755} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	path := "/no/such:" + dir + "/a:" + dir + "/b:" + dir + "/c"
	for _, tt := range []struct {
		name, dir, path, want string
		code                  banger.Code
	}{
		{"tool", "/", path, dir + "/b/tool", ""},
		{"tool", dir, "c:b", dir + "/c/tool", ""}, // relative to the command's directory
		{"tool", dir + "/c", "", dir + "/c/tool", ""},
		{"only", "/", path, "", banger.CodeCannotRun},
		{"dir", "/", path, "", banger.CodeCommandAbsent},
		{"absent", "/", path, "", banger.CodeCommandAbsent},
		{"./tool", dir + "/b", "", dir + "/b/tool", ""},
		{"/any/path", "/", "", "/any/path", ""}, // exec will say
	} {
		got, err := findProgram(tt.name, tt.dir, tt.path)
		if got != tt.want || (err != nil || tt.code != "") && banger.CodeOf(err) != tt.code {
			t.Errorf("%s in %s with %s is %q, %v", tt.name, tt.dir, tt.path, got, err)
		}
	}
}

// TestResolvConf writes what the C library reads.
func TestResolvConf(t *testing.T) {
	for _, c := range []struct {
		n    guest.Network
		want string
	}{
		{guest.Network{DNS: []string{"10.0.2.3"}}, "nameserver 10.0.2.3\n"},
		{guest.Network{DNS: []string{"10.0.2.3"}, Search: []string{"vm", "corp.example"}}, "nameserver 10.0.2.3\nsearch vm corp.example\n"},
	} {
		if got := resolvConf(c.n); got != c.want {
			t.Errorf("%+v is %q, not %q", c.n, got, c.want)
		}
	}
}
