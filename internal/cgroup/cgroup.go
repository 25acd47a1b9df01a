// Package cgroup bounds what processes may use together, by control groups of version 2
// (cgroups(7); Documentation/admin-guide/cgroup-v2.rst of Linux). It must not know whose
// processes they are, nor how they are started: who starts one puts it into a group by the
// descriptor of its directory (clone(2), CLONE_INTO_CGROUP).
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are what the processes of a group may use together; 0 is no limit.
type Limits struct {
	Memory int64 // bytes, with the pages of files that they cause to be held
	CPUs   int   // so many CPUs' time
	Tasks  int   // processes and threads
}

// Tree is a directory of groups. It is on the host only while it has groups.
type Tree struct {
	root string // where the hierarchy is mounted
	base string // the group in which it lies
	dir  string
	has  []string // the controllers that its groups have

	mu sync.Mutex // held while it is made for a group, and while it is removed
}

// controllers are those that Limits need.
var controllers = []string{"cpu", "memory", "pids"}

// Open finds where the calling process may make groups: for root below the root of the
// hierarchy, else in the next group above its own that was delegated to its user, as
// systemd's user sessions do. The tree's name is one that no other process uses. An error
// says why there is no such place. Groups may be made although their limits cannot be: see
// Missing.
func Open(name string) (*Tree, error) {
	mount, err := mountPoint("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	base := mount
	if os.Geteuid() != 0 {
		if base, err = delegated(mount, "/proc/self/cgroup"); err != nil {
			return nil, err
		}
	}
	t := &Tree{root: mount, base: base, dir: filepath.Join(base, name)}
	if err := t.make(); err != nil {
		return nil, err
	}
	t.has, err = limits(t.dir)
	t.leave()
	if err != nil {
		return nil, err
	}
	return t, nil
}

// limits returns the controllers by which the groups of the directory dir can be limited. A
// controller may be there without its limit: cpu.max needs CONFIG_CFS_BANDWIDTH. The
// directory is a group itself, which has the same files.
func limits(dir string) (has []string, err error) {
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return nil, err
	}
	for _, c := range strings.Fields(string(enabled)) {
		if _, err := os.Lstat(filepath.Join(dir, c+".max")); err == nil && slices.Contains(controllers, c) {
			has = append(has, c)
		}
	}
	return has, nil
}

// mountPoint returns where the hierarchy is mounted (proc_pid_mountinfo(5)).
func mountPoint(mountinfo string) (string, error) {
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		mount, kind, ok := strings.Cut(line, " - ")
		f := strings.Fields(mount)
		if ok && len(f) >= 5 && strings.HasPrefix(kind, "cgroup2 ") {
			return f[4], nil
		}
	}
	return "", errors.New("this host has no control groups of version 2")
}

// delegated returns the next group above our own that we may make groups in. Our own has
// processes, and may have no other children then.
func delegated(mount, own string) (string, error) {
	data, err := os.ReadFile(own)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !ok || path == "" || strings.Contains(path, "..") {
			continue
		}
		above := filepath.Join(mount, filepath.Dir(path))
		if above != mount && unix.Access(above, unix.W_OK) == nil && unix.Access(filepath.Join(above, "cgroup.procs"), unix.W_OK) == nil {
			return above, nil
		}
		return "", fmt.Errorf("the control group /%s is not one of a session whose groups are delegated to its user", path)
	}
	return "", errors.New("this process is in no control group of version 2")
}

// make makes the tree, with all controllers that can be had.
func (t *Tree) make() error {
	if err := os.Mkdir(t.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the control group %s: %w", t.dir, err)
	}
	for _, dir := range []string{t.base, t.dir} {
		for _, c := range controllers { // one by one, since one that is not there fails all
			os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		}
	}
	return nil
}

// leave removes the tree if it has no group.
func (t *Tree) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	os.Remove(t.dir)
}

// Dir is where the groups are.
func (t *Tree) Dir() string { return t.dir }

// Path is a group's place in the hierarchy, without a slash before it.
func (t *Tree) Path(name string) string {
	path, err := filepath.Rel(t.root, filepath.Join(t.dir, name))
	if err != nil {
		panic(err) // dir lies below root
	}
	return path
}

// Missing returns the controllers that groups do not have, whose limits are not in force.
func (t *Tree) Missing() []string {
	return slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return slices.Contains(t.has, c) })
}

// InForce returns those of l that groups can have.
func (t *Tree) InForce(l Limits) Limits {
	for c, limit := range map[string]func(){"cpu": func() { l.CPUs = 0 }, "memory": func() { l.Memory = 0 }, "pids": func() { l.Tasks = 0 }} {
		if !slices.Contains(t.has, c) {
			limit()
		}
	}
	return l
}

// Make makes a group, empty and with those limits that it can have, and returns its
// directory, which the caller closes. What was there of that name is removed first.
func (t *Tree) Make(name string, l Limits) (*os.File, error) {
	if err := t.Remove(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(t.dir, name)
	t.mu.Lock()
	err := t.make()
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	t.mu.Unlock()
	l = t.InForce(l)
	for file, value := range map[string]int64{"memory.max": l.Memory, "pids.max": int64(l.Tasks), "cpu.max": int64(l.CPUs) * cpuPeriod} {
		if err == nil && value > 0 {
			err = os.WriteFile(filepath.Join(dir, file), strconv.AppendInt(nil, value, 10), 0)
		}
	}
	if err == nil {
		var f *os.File
		if f, err = os.Open(dir); err == nil {
			return f, nil
		}
	}
	os.Remove(dir)
	t.leave()
	return nil, fmt.Errorf("making the control group %s: %w", dir, err)
}

// cpuPeriod is the kernel's own period of cpu.max in microseconds.
const cpuPeriod = 100_000

// OutOfMemory reports whether the kernel has killed a process of a group because of its
// limit.
func (t *Tree) OutOfMemory(name string) bool {
	data, err := os.ReadFile(filepath.Join(t.dir, name, "memory.events"))
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok && err == nil {
			return strings.TrimSpace(n) != "0"
		}
	}
	return false
}

// removeTimeout bounds the wait for the end of killed processes.
const removeTimeout = 5 * time.Second

// Remove kills the processes of a group and removes it. That there is none is no error.
func (t *Tree) Remove(name string) error {
	dir := filepath.Join(t.dir, name)
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer events.Close()
	if err := kill(dir); err != nil {
		return fmt.Errorf("killing the processes of %s: %w", dir, err)
	}
	for end := time.Now().Add(removeTimeout); ; {
		data := make([]byte, 4096)
		n, err := events.ReadAt(data, 0)
		if err != nil && n == 0 {
			return err
		}
		if bytes.Contains(data[:n], []byte("populated 0")) {
			break
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("the processes of %s do not end", dir)
		}
		// The file says by POLLPRI that it has changed.
		poll := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
	err = os.Remove(dir)
	t.leave()
	return err
}

// kill ends all processes of a group.
func kill(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if !errors.Is(err, fs.ErrNotExist) { // since Linux 5.14
		return err
	}
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for pid := range strings.FieldsSeq(string(data)) {
		if n, perr := strconv.Atoi(pid); perr == nil && n > 0 {
			unix.Kill(n, unix.SIGKILL)
		}
	}
	return err
}

// Names returns the groups that there are.
func (t *Tree) Names() ([]string, error) {
	entries, err := os.ReadDir(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}
