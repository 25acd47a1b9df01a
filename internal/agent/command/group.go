package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/console"
)

// Where the control group of commands is, below the root of the hierarchy of version 2.
const (
	hierarchy  = "/sys/fs/cgroup"
	ownGroup   = "banger"
	execGroup  = ownGroup + "/exec"
	freezeFile = "cgroup.freeze"
)

// groupControllers are the controllers of the group, as far as the kernel has them. With memory the kernel counts what
// the commands use and remembers the most (memory.peak). With cpu the agent's turn comes soon, however many commands
// want to run.
var groupControllers = []string{"memory", "pids", "cpu"}

// Group is the control group below which all commands run, and what they leave behind; the agent is outside. So
// commands can be measured and frozen together. A nil Group stands for a guest without control groups of version 2.
type Group struct {
	root   int      // the root of the hierarchy, which stays reachable when something is mounted over it
	dir    *os.File // the group; nil: it must be made
	events *os.File // its cgroup.events
	cpu    int64    // thousandths of a CPU that the commands may use; 0 means all
	warned bool

	own ownedGroups
}

// openGroup returns the group of commands in the hierarchy that is mounted at path. The group is made for the first
// command: before that, the image's own init sets up its tree, which may be one of version 1.
func openGroup(path string) (*Group, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", path, err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, fmt.Errorf("no control groups of version 2 are mounted at %s", path)
	}
	root, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return &Group{root: root}, nil
}

// OpenGroup returns the group of commands of a guest. Commands run without a group as well: after a failure, OpenGroup
// prints a warning and returns nil.
func OpenGroup() *Group {
	g, err := openGroup(hierarchy)
	if err != nil {
		console.Warn(fmt.Errorf("commands run in no control group of their own: %w", err))
	}
	return g
}

// open opens the group, which it makes if it is not there.
func (g *Group) open() error {
	g.close()
	g.enable(".")
	for _, dir := range []string{ownGroup, execGroup} {
		if err := unix.Mkdirat(g.root, dir, 0o755); err != nil && err != unix.EEXIST {
			return fmt.Errorf("making the control group /%s: %w", dir, err)
		}
		if dir == ownGroup {
			g.enable(dir)
		}
	}
	dir, err := g.openFile(execGroup, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	events, err := g.openFile(execGroup+"/cgroup.events", unix.O_RDONLY)
	if err != nil {
		dir.Close()
		return err
	}
	g.dir, g.events = dir, events
	if g.cpu == 0 {
		return nil
	}
	quota := fmt.Sprintf("%d %d", g.cpu*cpuPeriod/1000, cpuPeriod)
	if err := g.write(ownGroup+"/cpu.max", quota); err != nil {
		console.Warn(fmt.Errorf("commands may use all CPUs: %w", err))
	}
	return nil
}

// cpuPeriod is the time in microseconds within which a quota of CPU is counted (cgroup-v2.rst, cpu.max).
const cpuPeriod = 100_000

// enable gives the groups in dir their controllers, one by one, since an absent one would make all fail.
func (g *Group) enable(dir string) {
	for _, c := range groupControllers {
		g.write(dir+"/cgroup.subtree_control", "+"+c)
	}
}

func (g *Group) openFile(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(g.root, name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s of the control groups: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (g *Group) write(name, value string) error {
	f, err := g.openFile(name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

func (g *Group) close() {
	if g.dir != nil {
		g.dir.Close()
		g.events.Close()
	}
	g.dir, g.events = nil, nil
}

// joinErrors are the errors of clone(2) for a process that cannot be put into a group: this kernel cannot do it, or
// root in the guest has changed the group. A limit of the group gives another error, which the client gets.
var joinErrors = []error{unix.EBUSY, unix.EOPNOTSUPP, unix.EACCES, unix.EPERM,
	unix.ENOSYS, unix.EINVAL, unix.E2BIG, unix.EBADF}

// start calls fork, which starts a command by attr, for a process in the group or, unless alone is "", in a group of
// its own, which it returns. Somebody may have removed the group while it was empty; then start makes it again. A
// command that cannot be put into the group runs outside. Only one goroutine may call start at a time.
func (g *Group) start(alone string, attr *syscall.ProcAttr, fork func() (int, error)) (pid int, own *ownedGroup,
	err error) {
	if g == nil {
		pid, err = fork()
		return pid, nil, err
	}
	why := errors.New("somebody keeps removing it")
	for range 2 {
		frozen, err := g.state()
		if err != nil {
			why = err
			break
		}
		name, dir := execGroup, g.dir
		if alone != "" {
			own, err = g.makeOwn(alone)
			if err != nil {
				why = err
				break
			}
			defer own.dir.Close()
			name, dir, frozen = own.name, own.dir, own.frozen()
		}
		if frozen {
			own.remove()
			return 0, nil, banger.Errorf(banger.CodeConflict,
				"no command can start, since somebody in the guest has frozen the control group /%s", name).
				WithHint("write 0 to %s/%s/%s in the guest, or stop the VM", hierarchy, name, freezeFile)
		}
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
		pid, err = fork()
		if err == nil {
			return pid, own, nil
		}
		own.remove()
		if g.removed() { // its errors are those of an absent program
			continue
		}
		if !isJoinError(err) {
			return pid, nil, err
		}
		why = fmt.Errorf("the kernel starts no process in it: %w", err)
		break
	}
	attr.Sys.UseCgroupFD = false
	pid, err = fork()
	if err == nil {
		g.warnOnce(why)
	}
	return pid, nil, err
}

func isJoinError(err error) bool {
	return slices.ContainsFunc(joinErrors, func(e error) bool { return errors.Is(err, e) })
}

// state opens the group, if it is gone or was never made, and reports whether it is frozen. The kernel would freeze a
// new process before it becomes its program, and the agent, which waits for that, would hang.
func (g *Group) state() (frozen bool, err error) {
	events, err := g.read()
	if err != nil {
		if err := g.open(); err != nil {
			return false, err
		}
		events, err = g.read()
	}
	return bytes.Contains(events, []byte("frozen 1")), err
}

// removed reports whether the group is gone: the kernel reads no file of a removed group.
func (g *Group) removed() bool {
	_, err := g.read()
	return err != nil
}

// read returns what cgroup.events says now.
func (g *Group) read() ([]byte, error) {
	if g.events == nil {
		return nil, os.ErrNotExist
	}
	buf := make([]byte, 256)
	n, err := g.events.ReadAt(buf, 0)
	if err == io.EOF {
		err = nil
	}
	return buf[:n], err
}

// warnOnce prints that a command runs outside of the group. One line is enough for all commands.
func (g *Group) warnOnce(err error) {
	if !g.warned {
		g.warned = true
		console.Warn(fmt.Errorf("a command runs outside of the control group /%s: %w", execGroup, err))
	}
}

// thaw lets the commands go on if they are frozen.
func (g *Group) thaw() {
	if g == nil {
		return
	}
	for _, dir := range []string{ownGroup, execGroup} {
		g.write(dir+"/"+freezeFile, "0")
	}
}
