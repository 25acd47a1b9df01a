package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

// ownHierarchy returns a directory of control groups of version 2 that is the test's own, and its path in
// /proc/PID/cgroup.
func ownHierarchy(t *testing.T) (dir, path string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		mount, kind, _ := strings.Cut(line, " - ")
		if f := strings.Fields(mount); strings.HasPrefix(kind, "cgroup2 ") && f[3] == "/" {
			if dir, err = os.MkdirTemp(f[4], "banger-test-"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for _, d := range []string{"banger/exec/child", "banger/exec", "banger/one/child", "banger/one", "banger", ""} {
					os.Remove(filepath.Join(dir, d))
				}
			})
			return dir, "/" + filepath.Base(dir)
		}
	}
	t.Fatal("this machine has no control groups of version 2: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	return "", ""
}

// startCat starts a command in g that ends at end, and returns the group in which it is.
func startCat(t *testing.T, g *Group) (group string, end func(), err error) {
	t.Helper()
	r, w, perr := os.Pipe()
	if perr != nil {
		t.Fatal(perr)
	}
	defer r.Close()
	attr := &syscall.ProcAttr{Files: []uintptr{r.Fd(), 1, 2}, Sys: new(syscall.SysProcAttr)}
	pid, _, err := g.start("", attr, func() (int, error) { return syscall.ForkExec("/bin/cat", []string{"cat"}, attr) })
	if err != nil {
		w.Close()
		return "", nil, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			group = strings.TrimSpace(path)
		}
	}
	return group, func() {
		w.Close()
		syscall.Wait4(pid, nil, 0, nil)
	}, err
}

func TestCommandsStartInTheirGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes control groups")
	}
	root, path := ownHierarchy(t)
	g, err := openGroup(root)
	if err != nil {
		t.Fatal(err)
	}
	in := func(want string) {
		t.Helper()
		group, end, err := startCat(t, g)
		if err != nil {
			t.Fatal(err)
		}
		end()
		if group != want {
			t.Errorf("the command runs in %s, not in %s", group, want)
		}
	}
	write := func(file, value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, file), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	in(path + "/banger/exec")
	remove := func(dir string) {
		t.Helper()
		if err := unix.Rmdir(filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	remove("banger/exec")
	in(path + "/banger/exec")
	remove("banger/exec")
	remove("banger")
	in(path + "/banger/exec")

	for _, frozen := range []string{"banger/exec", "banger"} {
		write(frozen+"/cgroup.freeze", "1")
		_, _, err := startCat(t, g)
		if banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), "has frozen") {
			t.Errorf("with %s frozen a start gives %v", frozen, err)
		}
		g.thaw()
		in(path + "/banger/exec")
	}
	if g.warned {
		t.Error("it has warned of what is mended")
	}
	// A group whose children have a controller of their own takes no process; where there is no such controller, a
	// group below a threaded one takes none.
	if err := unix.Mkdir(filepath.Join(root, "banger/exec/child"), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.WriteFile(filepath.Join(root, "banger/exec/cgroup.subtree_control"), []byte("+memory"), 0) != nil {
		remove("banger/exec/child")
		write("banger/cgroup.type", "threaded")
	}
	group, end, err := startCat(t, g)
	if err != nil {
		t.Fatal(err)
	}
	end()
	if strings.HasPrefix(group, path) || !g.warned {
		t.Errorf("a group that takes no processes: the command runs in %s, a warning is %v", group, g.warned)
	}
}

// TestWhatAFailedStartMeans: a command that cannot join the group runs outside, and one that cannot start at all, or
// that a limit forbids, does not.
func TestWhatAFailedStartMeans(t *testing.T) {
	type try struct {
		err    error
		remove bool // somebody removes the group meanwhile
	}
	for name, tt := range map[string]struct {
		tries   []try
		inGroup []bool // of each try
		err     error  // of the last
		warned  bool
	}{
		"it starts":               {[]try{{}}, []bool{true}, nil, false},
		"no such program":         {[]try{{err: unix.ENOENT}}, []bool{true}, unix.ENOENT, false},
		"a limit":                 {[]try{{err: unix.EAGAIN}}, []bool{true}, unix.EAGAIN, false},
		"removed":                 {[]try{{unix.ENOENT, true}, {}}, []bool{true, true}, nil, false},
		"removed, a newer kernel": {[]try{{unix.ENODEV, true}, {}}, []bool{true, true}, nil, false},
		"removed each time": {[]try{{unix.ENODEV, true}, {unix.ENODEV, true}, {}},
			[]bool{true, true, false}, nil, true},
		"a kernel before 5.7":   {[]try{{err: unix.ENOSYS}, {}}, []bool{true, false}, nil, true},
		"a group with children": {[]try{{err: unix.EBUSY}, {}}, []bool{true, false}, nil, true},
		"no right to run it":    {[]try{{err: unix.EACCES}, {err: unix.EACCES}}, []bool{true, false}, unix.EACCES, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir() // stands for a hierarchy
			if err := os.MkdirAll(root+"/banger/exec", 0o755); err != nil {
				t.Fatal(err)
			}
			events := []byte("populated 0\nfrozen 0\n")
			if err := os.WriteFile(root+"/banger/exec/cgroup.events", events, 0o644); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			g := &Group{root: fd}
			defer g.close()
			defer unix.Close(fd)
			attr := &syscall.ProcAttr{Sys: new(syscall.SysProcAttr)}
			var inGroup []bool
			_, _, err = g.start("", attr, func() (int, error) {
				now := tt.tries[len(inGroup)]
				inGroup = append(inGroup, attr.Sys.UseCgroupFD)
				if now.remove {
					g.events.Close() // it cannot be read, as that of a group that was removed
				}
				return 1, now.err
			})
			if !slices.Equal(inGroup, tt.inGroup) || !errors.Is(err, tt.err) || g.warned != tt.warned {
				t.Errorf("tries in the group: %v, error %v, a warning is %v", inGroup, err, g.warned)
			}
		})
	}
}

// TestWithoutControlGroups: commands run where there is no hierarchy of version 2, or one that takes no group.
func TestWithoutControlGroups(t *testing.T) {
	const words = "no control groups of version 2 are mounted"
	if g, err := openGroup(t.TempDir()); g != nil || err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("a directory of another kind gives %v, %v", g, err)
	}
	var none *Group
	none.thaw()
	// Nobody makes a directory in this one.
	fd, err := unix.Open("/proc/self", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for name, g := range map[string]*Group{"no hierarchy": none, "one that takes no group": {root: fd}} {
		_, end, err := startCat(t, g)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		end()
		if g != nil && !g.warned {
			t.Errorf("%s: there is no warning", name)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
