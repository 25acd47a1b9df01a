// Package vmmtest has the tests of every VMM driver: Run, a suite that each driver must pass, and
// Memory, a driver without a VMM, with which the packages above a driver are tested in
// milliseconds.
//
// It must not know any real VMM, nor images, names or rows. Only tests import it.
package vmmtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent"
	"banger/internal/vmm"
)

// Fault is what goes wrong when a Memory driver starts a VM.
type Fault string

// The faults.
const (
	NoFault     Fault = ""
	FailToStart Fault = "fail-to-start" // the VMM itself refuses
	PanicAtBoot Fault = "panic-at-boot" // the guest's kernel panics
	DieAtOnce   Fault = "die-at-once"   // the VMM is killed once it runs
	NeverAnswer Fault = "never-answer"  // the guest hangs while it boots
)

// PanicText is what a guest with PanicAtBoot prints.
const PanicText = "Kernel panic - not syncing: a fault of the test"

// Memory is a driver whose guest is the real agent, which runs as a child process in serve mode.
// Its channel is a socket pair, and its console is the agent's output. Commands in the guest are
// commands on this host, so tests run only harmless ones.
type Memory struct {
	Agent string                 // path of the agent's binary
	Fault func(vmm.Config) Fault // returns the fault of a start; nil means no faults
	// Templates says that VMs can be written down while their guests wait for their host, for others to start from.
	Templates bool
}

// Name returns "memory".
func (Memory) Name() string { return "memory" }

// Path returns the path of the agent, which takes the place of a VMM.
func (d Memory) Path() (string, error) { return d.Agent, nil }

// Version returns "1.0" if the agent exists.
func (d Memory) Version(context.Context) (string, error) {
	if _, err := os.Stat(d.Agent); err != nil {
		return "", fmt.Errorf("the agent is not built: %w", err)
	}
	return "1.0", nil
}

// Start starts an agent. Kernel, initrd and drives must exist, though they are not read.
func (d Memory) Start(ctx context.Context, c vmm.Config, console io.Writer) (vmm.Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	files := []string{c.Kernel, c.Initrd}
	for _, d := range c.Drives {
		files = append(files, d.Path)
	}
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			return nil, err
		}
	}
	p := &process{config: c, started: make(chan error, 1), done: make(chan struct{})}
	if d.Fault != nil {
		p.fault = d.Fault(c)
	}
	if p.fault == FailToStart {
		return nil, fmt.Errorf("the test wants no VM here")
	}
	host, guest, err := socketPair()
	if err != nil {
		return nil, err
	}
	p.host = host
	if err := p.plug(); err != nil {
		host.Close()
		guest.Close()
		return nil, err
	}
	go p.run(d.Agent, guest, console)
	if err := <-p.started; err != nil {
		<-p.done
		return nil, fmt.Errorf("starting the agent: %w", err)
	}
	if !d.Templates {
		return p, nil
	}
	f, err := freeze(p, console)
	if err != nil {
		p.Kill()
		<-p.done
	}
	return f, err
}

// plug connects the NICs. No frame ever comes over them.
func (p *process) plug() error {
	for _, n := range p.config.NICs {
		conn, err := net.FileConn(n.Socket)
		if err != nil {
			p.unplug()
			return err
		}
		p.nics = append(p.nics, conn)
	}
	return nil
}

func (p *process) unplug() {
	for _, c := range p.nics {
		c.Close()
	}
}

func socketPair() (a, b *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest"), nil
}

// process is one agent.
type process struct {
	config  vmm.Config
	fault   Fault
	hostMu  sync.Mutex
	host    *os.File // our end of the channel
	nics    []net.Conn
	handle  vmm.Handle
	started chan error
	done    chan struct{}
	exit    vmm.Exit
}

// run starts the agent and waits for it on one locked thread, to which the parent-death signal is
// bound (prctl(2)).
func (p *process) run(agent string, channel *os.File, console io.Writer) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	defer p.closeHost()
	defer p.unplug()
	printed, theirs, err := openConsole(p.consolePath())
	if err != nil {
		channel.Close()
		p.started <- err
		return
	}
	defer os.Remove(p.consolePath())
	defer printed.Close()
	cmd := p.command(agent)
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{channel}, theirs, theirs
	err = cmd.Start()
	channel.Close()
	theirs.Close()
	if err != nil {
		p.started <- err
		return
	}
	p.handle, err = vmm.HandleOf(cmd.Process.Pid)
	if err == nil {
		err = p.provoke(console)
	}
	if err != nil {
		cmd.Process.Kill()
	}
	p.started <- err
	copied := make(chan struct{})
	go func() { // ends when the last process that may print does, or when printed is closed
		io.Copy(console, printed)
		close(copied)
	}()
	cmd.Wait()
	select {
	case <-copied:
	case <-time.After(time.Second): // a command left behind holds the console
		printed.Close()
		<-copied
	}
	p.exit = p.reason(cmd.ProcessState)
}

// command returns the agent's command. If we are root, the agent has its own PID and network
// namespaces and its own /dev/console: all its commands then end with it and print where a guest's
// would.
func (p *process) command(agent string) *exec.Cmd {
	cmd := exec.Command(agent, "serve")
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if os.Getuid() == 0 {
		cmd = exec.Command("/bin/sh", "-c", `mount --bind "$1" /dev/console && exec "$0" serve`, agent, p.consolePath())
		attr.Cloneflags, attr.Unshareflags = syscall.CLONE_NEWPID|syscall.CLONE_NEWNET, syscall.CLONE_NEWNS
	}
	cmd.Dir, cmd.SysProcAttr = "/", attr
	cmd.Env = append(os.Environ(), "BANGER_TEST_DISK="+p.guestDisk(),
		"BANGER_TEST_SECRETS="+filepath.Join(p.config.Dir, "secrets"))
	return cmd
}

// guestDisk returns the directory that stands for the guest's disk. It is beside the disk that the guest would have.
func (p *process) guestDisk() string {
	for _, d := range p.config.Drives {
		if d.Serial == "disk" {
			return d.Path + ".guest"
		}
	}
	return ""
}

func (p *process) consolePath() string { return filepath.Join(p.config.Dir, "console") }

// openConsole makes a named pipe and opens both its ends.
func openConsole(path string) (r, w *os.File, err error) {
	os.Remove(path) // left by a process that was killed
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, nil, err
	}
	if r, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
		if w, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
			r.Close()
		}
	}
	if err != nil {
		os.Remove(path)
	}
	return r, w, err
}

// provoke causes the fault.
func (p *process) provoke(console io.Writer) error {
	switch p.fault {
	case PanicAtBoot:
		fmt.Fprintln(console, PanicText)
		return p.Kill()
	case DieAtOnce:
		return p.Kill()
	case NeverAnswer:
		return p.signal(syscall.SIGSTOP)
	}
	return nil
}

func (p *process) reason(st *os.ProcessState) vmm.Exit {
	ws, _ := st.Sys().(syscall.WaitStatus)
	switch {
	case p.fault == PanicAtBoot:
		return vmm.Exit{Panic: true, Reason: "the guest kernel panicked"}
	case ws.Signaled():
		return vmm.Exit{Signal: int(ws.Signal()), Reason: fmt.Sprintf("the VMM was killed by signal %d", ws.Signal())}
	case st.ExitCode() == agent.RebootCode:
		return vmm.Exit{Reboot: true, Reason: "the guest rebooted"}
	case st.ExitCode() != 0:
		return vmm.Exit{Code: st.ExitCode(), Reason: fmt.Sprintf("the VMM failed with code %d", st.ExitCode())}
	}
	return vmm.Exit{Reason: "the guest powered off"}
}

func (p *process) Handle() vmm.Handle    { return p.handle }
func (p *process) Done() <-chan struct{} { return p.done }
func (p *process) Exit() vmm.Exit        { return p.exit }

func (p *process) Kill() error                  { return p.signal(syscall.SIGKILL) }
func (p *process) Resume(context.Context) error { return p.signal(syscall.SIGCONT) }

// Stats returns zeros: no process reads the drives.
func (p *process) Stats(context.Context) (vmm.Stats, error) {
	if !p.handle.Alive() {
		return vmm.Stats{}, os.ErrProcessDone
	}
	return vmm.Stats{}, nil
}

// Pause returns when all threads have stopped. A signal alone does not tell that.
func (p *process) Pause(context.Context) error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		err := unix.Waitid(unix.P_PID, p.handle.PID, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		if sig == syscall.SIGKILL {
			return nil
		}
		return os.ErrProcessDone
	default:
		return syscall.Kill(p.handle.PID, sig)
	}
}

// OpenChannel returns a new descriptor of the host's end. As on a virtio-serial port, the guest
// does not notice when it is closed.
func (p *process) OpenChannel(context.Context) (net.Conn, error) {
	p.hostMu.Lock()
	defer p.hostMu.Unlock()
	return net.FileConn(p.host)
}

func (p *process) closeHost() {
	p.hostMu.Lock()
	defer p.hostMu.Unlock()
	p.host.Close()
}
