package agent

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"banger"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process is one running command and our ends of its stdio.
type process struct {
	pid            int
	stdin          *os.File // nil: /dev/null
	stdout, stderr *os.File // stderr is nil with a terminal
	tty            *os.File // the terminal's master, also stdin and stdout

	pipes []string // of its stdio, as /proc has them; set: only who has one of them is hung up

	done chan struct{} // closed when exit is known
	exit banger.Exit

	mu    sync.Mutex
	ended bool // the pid may be someone else's
}

// manner is how a command is started beyond what an Exec says.
type manner struct {
	file   string              // is run, whatever the first argument is; "": that names it
	modes  func(*unix.Termios) // changes those of a terminal; nil: the kernel's own
	helper bool                // it is a part of the agent, and no command
	group  *commandGroup       // is where it runs; nil: where the agent does
}

// launch starts e. The error says by its code whether the command is absent or
// cannot run.
func (r *reaper) launch(e banger.Exec, how manner) (*process, error) {
	id, err := lookUp(e.User)
	if err != nil {
		return nil, err
	}
	env := completeEnv(e, id)
	dir := e.Dir
	if dir == "" {
		dir = "/"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, banger.Errorf(banger.CodeCannotRun, "the working directory %q cannot be made: %w", dir, err)
	}
	file := how.file
	if file == "" {
		if file, err = findProgram(e.Args[0], dir, envValue(env, "PATH")); err != nil {
			return nil, err
		}
	}
	p := &process{done: make(chan struct{})}
	files, err := p.makeStdio(e)
	if err != nil {
		return nil, banger.Errorf(banger.CodeCannotRun, "no stdio for the command: %w", err)
	}
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Sys: &syscall.SysProcAttr{Setsid: true,
		Credential: &syscall.Credential{Uid: id.uid, Gid: id.gid, Groups: id.allGroups()}}}
	if os.Geteuid() != 0 {
		attr.Sys.Credential = nil // a test as an ordinary user
	}
	if e.TTY {
		attr.Sys.Setctty, attr.Sys.Ctty = true, 0
		unix.Fchown(int(files[0]), int(id.uid), -1)
		setModes(int(files[0]), how.modes)
	}
	attr.Files = files
	p.mu.Lock() // until pid is set, an end must wait
	p.pid, err = how.group.start(attr, func() (int, error) { return r.start(file, e.Args, attr, p.onEnd) })
	p.mu.Unlock()
	closeAll(files)
	if err != nil {
		p.closeStdio()
		return nil, startError(e.Args[0], err)
	}
	return p, nil
}

func (p *process) onEnd(ws unix.WaitStatus) {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	if ws.Signaled() {
		p.exit = banger.Exit{Signal: int(ws.Signal())}
	} else {
		p.exit = banger.Exit{Code: ws.ExitStatus()}
	}
	close(p.done)
}

// signal signals the command's process group.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil
	}
	return syscall.Kill(-p.pid, sig)
}

// resize gives the command's terminal, if it has one, a new size. The command may end
// at the same time.
func (p *process) resize(rows, cols uint16) error {
	if p.tty == nil {
		return nil
	}
	raw, err := p.tty.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(err, failed)
}

// hangUp ends a command whose client is gone.
func (p *process) hangUp() {
	p.signalAttached(syscall.SIGHUP)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.signalAttached(syscall.SIGKILL)
	}
}

// spareDaemons has hangUp leave alone who has put all of the command's pipes away.
// That they ignore SIGHUP is no sign of it: node, for one, restores what nohup sets.
func (p *process) spareDaemons() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		var st unix.Stat_t
		if raw, err := f.SyscallConn(); err == nil && raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }) == nil && err == nil {
			p.pipes = append(p.pipes, fmt.Sprintf("pipe:[%d]", st.Ino)) // one number for both ends
		}
	}
}

// signalAttached signals the command and, of its process group, those that hangUp is for.
func (p *process) signalAttached(sig syscall.Signal) {
	if p.pipes == nil {
		p.signal(sig)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	syscall.Kill(p.pid, sig)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == p.pid {
			continue
		}
		if group, err := unix.Getpgid(pid); err == nil && group == p.pid && p.attached(pid) {
			syscall.Kill(pid, sig)
		}
	}
}

// attached reports whether one of the command's pipes is the stdio of a process.
func (p *process) attached(pid int) bool {
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err == nil && slices.Contains(p.pipes, to) {
			return true
		}
	}
	return false
}

// makeStdio makes the command's ends (returned) and ours (in p). The command's
// are bare descriptors: a File of each would cost an emulated guest seven calls.
func (p *process) makeStdio(e banger.Exec) (files []uintptr, err error) {
	if e.TTY {
		return p.makeTerminal(e)
	}
	defer func() {
		if err != nil {
			closeAll(files)
			p.closeStdio()
		}
	}()
	if e.Stdin {
		r, w, err := newPipe(unix.O_WRONLY)
		if err != nil {
			return nil, err
		}
		files, p.stdin = append(files, r), w
	} else {
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, uintptr(null))
	}
	for _, ours := range []**os.File{&p.stdout, &p.stderr} {
		w, r, err := newPipe(unix.O_RDONLY)
		if err != nil {
			return files, err
		}
		files, *ours = append(files, w), r
	}
	return files, nil
}

// pipeSize is the size in bytes of a command's pipes: the more they hold, the
// less often the guest must switch between the command and us.
const pipeSize = 256 << 10

// newPipe returns the command's end of a pipe and ours, which is open for mode.
func newPipe(mode int) (theirs uintptr, ours *os.File, err error) {
	var fds [2]int // read, write
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return 0, nil, err
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // else it stays smaller
	t, o := fds[0], fds[1]
	if mode == unix.O_RDONLY {
		t, o = o, t
	}
	unix.FcntlInt(uintptr(o), unix.F_SETFL, mode|unix.O_NONBLOCK) // cannot fail
	return uintptr(t), os.NewFile(uintptr(o), "pipe"), nil
}

func (p *process) makeTerminal(e banger.Exec) ([]uintptr, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	if e.Rows > 0 && e.Cols > 0 {
		pty.Setsize(master, &pty.Winsize{Rows: e.Rows, Cols: e.Cols})
	}
	fd, err := unix.FcntlInt(slave.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		master.Close()
		return nil, err
	}
	p.tty, p.stdin, p.stdout = master, master, master
	return []uintptr{uintptr(fd), uintptr(fd), uintptr(fd)}, nil
}

// setModes changes a terminal's modes, before its command runs.
func setModes(fd int, change func(*unix.Termios)) {
	if change == nil {
		return
	}
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		change(t)
		unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
}

func (p *process) closeStdio() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// closeAll closes the command's descriptors; a terminal stands thrice in the list.
func closeAll(files []uintptr) {
	for _, fd := range slices.Compact(files) {
		unix.Close(int(fd))
	}
}

// completeEnv adds what every command may expect and e does not set.
func completeEnv(e banger.Exec, id identity) []string {
	env := append([]string(nil), e.Env...)
	add := func(key, value string) {
		if envValue(env, key) == "" {
			env = append(env, key+"="+value)
		}
	}
	add("PATH", defaultPath)
	add("HOME", id.home)
	if host, err := os.Hostname(); err == nil {
		add("HOSTNAME", host)
	}
	if e.TTY {
		add("TERM", "xterm")
	}
	return env
}

func envValue(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

// findProgram searches as execvp(3) does, in the command's own PATH.
func findProgram(name, dir, pathList string) (string, error) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		return name, nil // exec says what is wrong with it
	}
	denied := false
	for d := range strings.SplitSeq(pathList, ":") {
		if d == "" {
			d = "."
		}
		if !path.IsAbs(d) {
			d = path.Join(dir, d)
		}
		var st unix.Stat_t
		candidate := path.Join(d, name)
		if unix.Stat(candidate, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		if st.Mode&0o111 != 0 {
			return candidate, nil
		}
		denied = true
	}
	if denied {
		return "", startError(name, unix.EACCES)
	}
	return "", banger.Errorf(banger.CodeCommandAbsent, "there is no command %q in the image's PATH", name)
}

func startError(name string, err error) error {
	if _, ok := errors.AsType[*banger.Error](err); ok {
		return err
	}
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return banger.Errorf(banger.CodeCommandAbsent, "there is no command %q, or its interpreter is missing", name)
	}
	return banger.Errorf(banger.CodeCannotRun, "the command %q cannot be run: %w", name, err)
}
