// Package child runs a VMM as a child process. The process is started on a thread that lives as
// long as the process does, ends with its parent, and is identified by pid and start time. The
// package must not know which VMM it runs, nor what the VMM prints.
package child

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// Command is the command of a VMM and its surroundings.
type Command struct {
	Config  vmm.Config // supplies Wrap, WrapFiles, Namespaces and Dir, the working directory
	Program string     // searched in PATH
	Args    []string   // without the program's name
	Files   []*os.File // descriptors from 3 on, behind those of the wrapper; a nil file leaves a gap
	Console io.Writer  // receives standard output
	// Reason describes how the process ended. All of its output has been read by then.
	Reason func(*Process, *os.ProcessState) vmm.Exit
	// Ended runs after the end of the process and before Done is closed.
	Ended func()
}

// Process is a running VMM, or one that has ended.
type Process struct {
	command Command
	process *os.Process // its pid is the one that this process sees
	handle  vmm.Handle  // with the pid that the host sees
	started chan error
	work    chan func()
	done    chan struct{}
	exit    vmm.Exit

	Stderr, Stdout Tail // for Reason
}

// Start starts a VMM. The VMM ends when the calling process does.
func Start(c Command) (*Process, error) {
	p := &Process{command: c, done: make(chan struct{}), started: make(chan error, 1), work: make(chan func())}
	go p.run()
	if err := <-p.started; err != nil {
		if c.Config.Namespaces &&
			(errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS)) {
			return nil, fmt.Errorf("starting %s: this host lets no ordinary user make a user namespace: allow it "+
				"(sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone), or use --vmm=qemu, which needs none: %w",
				c.Program, err)
		}
		return nil, fmt.Errorf("starting %s: %w", c.Program, err)
	}
	return p, nil
}

// run starts the VMM and stays until it has ended, all on one locked thread. The parent-death signal is bound
// to the thread that forked (prctl(2), PR_SET_PDEATHSIG), so that thread must live exactly as long
// as the child.
func (p *Process) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	cmd := p.exec()
	if err := cmd.Start(); err != nil {
		p.started <- err
		return
	}
	p.process = cmd.Process
	h, err := vmm.HandleOfFD(*cmd.SysProcAttr.PidFD) // PidFD exists since Linux 5.2
	unix.Close(*cmd.SysProcAttr.PidFD)               // cmd.Process has its own
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		p.started <- err
		return
	}
	p.handle = h
	p.started <- nil
	ended := make(chan struct{})
	go func() { // ends with the VMM
		cmd.Wait()
		close(ended)
	}()
	for running := true; running; {
		select {
		case f := <-p.work:
			f()
		case <-ended:
			running = false
		}
	}
	p.exit = p.command.Reason(p, cmd.ProcessState)
	p.command.Ended()
}

func (p *Process) exec() *exec.Cmd {
	c := p.command
	program := c.Program
	if path, err := exec.LookPath(program); err == nil {
		program = path // a wrapper does not search PATH
	}
	words := slices.Concat(c.Config.Wrap, []string{program}, c.Args)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = c.Config.Dir
	cmd.ExtraFiles = slices.Concat(c.Config.WrapFiles, c.Files)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&p.Stdout, c.Console), &p.Stderr
	cmd.WaitDelay = time.Second // another process that holds the console must not delay the end
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.SysProcAttr = attributes(c.Config.Namespaces, os.Geteuid(), os.Getegid())
	return cmd
}

// attributes returns the attributes of a VMM's process, or of its wrapper's. It is a pure function:
// a golden test shows which namespaces are made, and with which rights.
func attributes(namespaces bool, uid, gid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, PidFD: new(int)}
	switch {
	case namespaces && uid == 0:
		a.Cloneflags = syscall.CLONE_NEWNET
	case namespaces:
		a.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
		a.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
	return a
}

// Handle returns what identifies the process on the host.
func (p *Process) Handle() vmm.Handle { return p.handle }

// Do calls f on the thread that has started the VMM, and returns when f does. Where each thread of this process is
// confined by itself (landlock(7)), only that thread may look into the VMM (ptrace(2)). The VMM's end waits for f. Do
// returns os.ErrProcessDone, without a call of f, if the VMM has ended.
func (p *Process) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case p.work <- func() { result <- f() }:
		return <-result
	case <-p.done:
		return os.ErrProcessDone
	}
}

// Done returns a channel that is closed when the process has ended and Exit is known.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended. It is valid once Done is closed.
func (p *Process) Exit() vmm.Exit { return p.exit }

// Kill ends the VMM and its guest at once, even if the VMM is stopped.
func (p *Process) Kill() error {
	if err := p.process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Tail keeps the last tailSize bytes that are written to it. Only one goroutine may write, and the
// content may be read once that goroutine has ended.
type Tail struct{ buf []byte }

const tailSize = 16 << 10

// Write appends b and drops what is older than the last tailSize bytes. It never fails.
func (t *Tail) Write(b []byte) (int, error) {
	t.buf = append(t.buf, b...)
	if n := len(t.buf); n > 2*tailSize {
		t.buf = append(t.buf[:0], t.buf[n-tailSize:]...)
	}
	return len(b), nil
}

// Contains reports whether text is in the kept bytes.
func (t *Tail) Contains(text string) bool { return strings.Contains(string(t.buf), text) }

// LastLine returns the last line that is not empty.
func (t *Tail) LastLine() string {
	lines := strings.Split(strings.TrimSpace(string(t.buf)), "\n")
	return lines[len(lines)-1]
}
