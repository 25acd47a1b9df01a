package command

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ownedGroup is the control group of one command, beside the group of the others. A nil ownedGroup stands for a command
// without one.
type ownedGroup struct {
	all  *Group
	name string        // the path below the root of the hierarchy
	dir  *os.File      // open while the command starts
	gone chan struct{} // closed when the group is removed
	wd   int           // its watch
}

// ownedGroups are the groups of single commands.
type ownedGroups struct {
	mu    sync.Mutex
	used  map[string]bool        // the names of those whose command starts or runs
	left  map[string]*ownedGroup // those whose command has ended before all of its processes
	watch *os.File               // inotify(7) on those that are left; nil: it must be made
}

// makeOwn makes the group of one command, which it opens, or takes the one of that name that is left. The group stays
// until remove is called.
func (g *Group) makeOwn(name string) (*ownedGroup, error) {
	g.own.mu.Lock()
	defer g.own.mu.Unlock()
	name = ownGroup + "/" + name
	o := g.own.left[name]
	if o == nil {
		o = &ownedGroup{all: g, name: name, gone: make(chan struct{})}
	}
	if err := unix.Mkdirat(g.root, o.name, 0o755); err != nil && err != unix.EEXIST {
		return nil, err
	}
	dir, err := g.openFile(o.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	o.dir = dir
	if g.own.used == nil {
		g.own.used, g.own.left = map[string]bool{}, map[string]*ownedGroup{}
	}
	g.own.used[name] = true
	delete(g.own.left, name)
	return o, nil
}

// read returns what a file of the group says.
func (o *ownedGroup) read(file string) []byte {
	f, err := o.all.openFile(o.name+"/"+file, unix.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	buf := make([]byte, 256)
	n, _ := f.Read(buf)
	return buf[:n]
}

// frozen reports whether somebody has frozen the group.
func (o *ownedGroup) frozen() bool {
	return bytes.Contains(o.read("cgroup.events"), []byte("frozen 1"))
}

// peak returns the most memory that the group has used at once, in bytes; 0 if the kernel does not say (before 5.19).
func (o *ownedGroup) peak() int64 {
	if o == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(bytes.TrimSpace(o.read("memory.peak"))), 10, 64)
	return n
}

// kill ends all processes of the group (cgroup-v2.rst, cgroup.kill).
func (o *ownedGroup) kill() error {
	if o == nil {
		return nil
	}
	return o.all.write(o.name+"/cgroup.kill", "1")
}

// remove removes the group when no process is in it any more. It does not wait for that.
func (o *ownedGroup) remove() {
	if o == nil {
		return
	}
	own := &o.all.own
	own.mu.Lock()
	defer own.mu.Unlock()
	if !own.used[o.name] {
		return
	}
	delete(own.used, o.name)
	if o.tryRemove() {
		return
	}
	own.left[o.name] = o
	if own.watch == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil { // the guest has too many; the group stays until clear
			return
		}
		own.watch = os.NewFile(uintptr(fd), "inotify")
		go o.all.removeLeft(own.watch) // ends with the agent
	}
	own.control(func(fd int) { o.wd, _ = unix.InotifyAddWatch(fd, o.path()+"/cgroup.events", unix.IN_MODIFY) })
	o.tryRemove() // it may have become empty before it was watched
}

// control calls f with the descriptor of the watch, if there is one.
func (own *ownedGroups) control(f func(fd int)) {
	if own.watch == nil {
		return
	}
	if conn, err := own.watch.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// removeLeft removes each group that is left when its last process ends, which is an event of watch.
func (g *Group) removeLeft(watch *os.File) {
	buf := make([]byte, 4096)
	for {
		if _, err := watch.Read(buf); err != nil {
			return
		}
		g.own.mu.Lock()
		for _, o := range g.own.left {
			o.tryRemove()
		}
		g.own.mu.Unlock()
	}
}

// tryRemove removes the group, with groups that the command has made in it, if no process is in it and no command uses
// it. It reports whether the group is gone. The mutex of all owned groups is held.
func (o *ownedGroup) tryRemove() bool {
	own := &o.all.own
	if own.used[o.name] || bytes.Contains(o.read("cgroup.events"), []byte("populated 1")) {
		return false
	}
	var dirs []string
	filepath.WalkDir(o.path(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			return false
		}
	}
	own.control(func(fd int) { unix.InotifyRmWatch(fd, uint32(o.wd)) })
	delete(own.left, o.name)
	close(o.gone)
	return true
}

// path returns the path of the group, which stays right when something is mounted over the hierarchy.
func (o *ownedGroup) path() string { return fmt.Sprintf("/proc/self/fd/%d/%s", o.all.root, o.name) }

// clear kills what is left in the group after remove, and returns when the group is gone, or after patience.
func (o *ownedGroup) clear(patience time.Duration) {
	if o == nil {
		return
	}
	o.kill()
	select {
	case <-o.gone:
	case <-time.After(patience):
	}
}
