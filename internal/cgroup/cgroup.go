// Package cgroup limits what processes may use together, by control groups of version 2 (cgroups(7);
// Documentation/admin-guide/cgroup-v2.rst of Linux). It must not know whose processes they are, or how they are
// started. A process is put into a group at its start, by the descriptor of the group's directory (clone(2),
// CLONE_INTO_CGROUP).
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
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

// Limits are what the processes of a group may use together. 0 means no limit.
type Limits struct {
	Memory int64 // bytes, including cached pages of files that they use
	CPUs   int   // the time of this many CPUs
	Tasks  int   // processes and threads
}

// Tree is a directory of groups. It exists on the host only while it has groups.
type Tree struct {
	root string // mount point of the hierarchy
	base string // parent group of the tree
	dir  string
	has  []string // controllers of its groups

	mu sync.Mutex // held while the tree is made for a group, and while it is removed
}

// controllers are the controllers that Limits need.
var controllers = []string{"cpu", "memory", "pids"}

// Open finds a place where the calling process may make groups: for root below the root of the hierarchy, otherwise
// in the nearest group above its own that was delegated to its user, as systemd does for user sessions. No other
// process may use the tree's name. The error says why there is no such place. Groups may be possible without some
// limits: see Missing.
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

// limits returns the controllers that can limit the groups of the directory dir. A controller may exist without its
// limit: cpu.max needs CONFIG_CFS_BANDWIDTH. limits looks in dir itself, which is a group with the same files.
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

// delegated returns the nearest group above our own in which we may make groups. Our own group has processes, and
// therefore cannot have other children.
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
		if above != mount && unix.Access(above, unix.W_OK) == nil &&
			unix.Access(filepath.Join(above, "cgroup.procs"), unix.W_OK) == nil {
			return above, nil
		}
		return "", fmt.Errorf("the control group /%s is not one of a session whose groups are delegated to its user", path)
	}
	return "", errors.New("this process is in no control group of version 2")
}

// make makes the tree with all available controllers.
func (t *Tree) make() error {
	if err := os.Mkdir(t.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the control group %s: %w", t.dir, err)
	}
	for _, dir := range []string{t.base, t.dir} {
		for _, c := range controllers { // one by one, because a missing one would make all fail
			os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		}
	}
	return nil
}

// leave removes the tree if it has no groups.
func (t *Tree) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	os.Remove(t.dir)
}

// Dir returns the directory of the groups.
func (t *Tree) Dir() string { return t.dir }

// Path returns a group's path in the hierarchy, without a leading slash.
func (t *Tree) Path(name string) string {
	path, err := filepath.Rel(t.root, filepath.Join(t.dir, name))
	if err != nil {
		panic(err) // dir lies below root
	}
	return path
}

// Missing returns the controllers that groups do not have. Their limits are not in force.
func (t *Tree) Missing() []string {
	return slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return slices.Contains(t.has, c) })
}

// InForce returns l without the limits that groups cannot have.
func (t *Tree) InForce(l Limits) Limits {
	for c, limit := range map[string]func(){"cpu": func() { l.CPUs = 0 }, "memory": func() { l.Memory = 0 },
		"pids": func() { l.Tasks = 0 }} {
		if !slices.Contains(t.has, c) {
			limit()
		}
	}
	return l
}

// Make makes an empty group with the available limits, and returns its directory, which the caller must close. It
// first removes an older group of that name.
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
	for file, value := range map[string]int64{"memory.max": l.Memory, "pids.max": int64(l.Tasks),
		"cpu.max": int64(l.CPUs) * cpuPeriod} {
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

// cpuPeriod is the kernel's default period of cpu.max in microseconds.
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

// Remove kills the processes of a group and removes it. It returns no error if the group does not exist.
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
		// The kernel signals a change of the file by POLLPRI.
		poll := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
	err = os.Remove(dir)
	t.leave()
	return err
}

// kill kills all processes of a group.
func kill(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if !errors.Is(err, fs.ErrNotExist) { // cgroup.kill exists since Linux 5.14
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

// Names returns the names of all groups.
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

// NameOf returns the name of the tree for the VMs of a state directory. Daemons with other state directories have
// other trees.
func NameOf(stateDir string) string {
	return fmt.Sprintf("banger-%08x", crc32.ChecksumIEEE([]byte(stateDir)))
}

// RemoveAll kills the processes of all groups of the trees called name, wherever in the hierarchy they are, and removes
// the trees. Without control groups there is nothing to do.
func RemoveAll(name string) error {
	mount, err := mountPoint("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var trees []*Tree
	filepath.WalkDir(mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // groups come and go
		}
		if d.Name() == name {
			trees = append(trees, &Tree{root: mount, base: filepath.Dir(path), dir: path})
			return fs.SkipDir
		}
		return nil
	})
	for _, t := range trees {
		groups, err := t.Names()
		for _, g := range groups {
			err = errors.Join(err, t.Remove(g))
		}
		t.leave()
		if err != nil {
			return err
		}
	}
	return nil
}
