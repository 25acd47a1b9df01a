// Package command starts commands, waits for them, signals and ends them, and handles the other end
// of their pipes and terminals. It finds the user of a command in the image's own files, and keeps
// all commands in one control group.
//
// The package must not know which client requests a command, nor how its bytes travel to the host.
package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// hangUpTime is how long a command may take to end after SIGHUP.
const hangUpTime = 5 * time.Second

// Process is one command and our ends of its stdio. Its owner calls Close once the
// command has ended.
type Process struct {
	pid            int
	stdin          *os.File // nil: /dev/null
	stdout, stderr *os.File // stderr is nil with a terminal
	tty            *os.File // the terminal's master, also stdin and stdout

	group *ownedGroup // nil: the command shares that of all commands

	pipes []string // its stdio as /proc names it; if set, HangUp signals only the holders of one

	done chan struct{} // closed when exit is known
	exit banger.Exit

	mu    sync.Mutex
	ended bool // the pid may belong to another process
}

// Done returns a channel that is closed when the command has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the command ended. It is valid once Done is closed.
func (p *Process) Exit() banger.Exit { return p.exit }

// Stdout returns what the command writes to its stdout or terminal, as a reader for
// one goroutine. It may be called once.
func (p *Process) Stdout() io.Reader { return &output{file: p.stdout, left: untilStopped} }

// Stderr returns what the command writes to its stderr, as a reader for one
// goroutine. It returns nil for a command with a terminal. It may be called once.
func (p *Process) Stderr() io.Reader {
	if p.stderr == nil {
		return nil
	}
	return &output{file: p.stderr, left: untilStopped}
}

func (p *Process) onEnd(ws unix.WaitStatus) {
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

// Signal signals the command's process group. It does nothing once the command has
// ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil
	}
	return syscall.Kill(-p.pid, sig)
}

// Resize gives the command's terminal, if it has one, a new size in characters. The
// command may end at the same time.
func (p *Process) Resize(rows, cols uint16) error {
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

// HangUp ends a command whose client is gone: by SIGHUP, and after 5 s by SIGKILL.
// It may return before the command has ended.
func (p *Process) HangUp() {
	p.BeginHangUp()
	p.FinishHangUp()
}

// BeginHangUp does the first part of HangUp, which takes no time.
func (p *Process) BeginHangUp() { p.signalAttached(syscall.SIGHUP) }

// FinishHangUp does the rest of HangUp.
func (p *Process) FinishHangUp() {
	select {
	case <-p.done:
	case <-time.After(hangUpTime):
		p.signalAttached(syscall.SIGKILL)
	}
}

// SpareDaemons makes HangUp skip processes that no longer hold any of the command's
// pipes: they were put in the background on purpose. Whether a process ignores
// SIGHUP does not show that: node, for one, restores what nohup sets.
func (p *Process) SpareDaemons() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		var st unix.Stat_t
		raw, err := f.SyscallConn()
		if err != nil {
			continue
		}
		if raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }) == nil && err == nil {
			p.pipes = append(p.pipes, fmt.Sprintf("pipe:[%d]", st.Ino)) // one number for both ends
		}
	}
}

// signalAttached signals the command and those of its process group that HangUp ends.
func (p *Process) signalAttached(sig syscall.Signal) {
	if p.pipes == nil {
		p.Signal(sig)
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
func (p *Process) attached(pid int) bool {
	for fd := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err == nil && slices.Contains(p.pipes, to) {
			return true
		}
	}
	return false
}

// PID returns the number of the command's first process.
func (p *Process) PID() int { return p.pid }

// PeakMemory returns the most memory in bytes that a command with a group of its own, and all that it has started, has
// used at once. It is 0 if that is not known. It may be called until Close.
func (p *Process) PeakMemory() int64 { return p.group.peak() }

// KillAll kills a command with a group of its own, and all that it has started.
func (p *Process) KillAll() {
	p.Signal(syscall.SIGKILL)
	p.group.kill()
}

// KillLeft kills what a command with a group of its own has left behind, after Close. It returns when that has ended,
// or after patience.
func (p *Process) KillLeft(patience time.Duration) { p.group.clear(patience) }

// Close closes our ends of the command's stdio. A group of its own goes with the last process that is in it.
func (p *Process) Close() {
	p.group.remove()
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}
