// Package qemu is the vmm.Driver for QEMU system emulation, with KVM or without
// (TCG). It turns a vmm.Config into an argv, owns the process and its QMP
// monitor, and offers the agent's virtio-serial port as a byte channel.
//
// It must not know what the drives hold, where the kernel came from, or who
// talks over the channel.
package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"banger/internal/vmm"
)

// Driver starts QEMU processes. The zero value uses the host's default binary.
type Driver struct {
	// Binary overrides the name of the program, "" means qemu-system-ARCH.
	Binary string
}

// Name returns "qemu".
func (Driver) Name() string { return "qemu" }

func (d Driver) binary() string {
	if d.Binary != "" {
		return d.Binary
	}
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// Path returns the program that Start would run.
func (d Driver) Path() (string, error) {
	path, err := exec.LookPath(d.binary())
	if err != nil {
		return "", fmt.Errorf("%s is not installed", d.binary())
	}
	return path, nil
}

// Version returns QEMU's version, at least 7.2.
func (d Driver) Version(ctx context.Context) (string, error) {
	v, err := d.version(ctx)
	return v.text, err
}

func (d Driver) version(ctx context.Context) (version, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, d.binary(), "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return version{}, fmt.Errorf("%s is not installed", d.binary())
	}
	if err != nil {
		return version{}, fmt.Errorf("running %s --version: %w", d.binary(), err)
	}
	v, err := parseVersion(string(out))
	if err != nil {
		return version{}, err
	}
	if v.less(minVersion) {
		return version{}, fmt.Errorf("QEMU %s is too old, %s or later is needed", v.text, minVersion.machine())
	}
	return v, nil
}

// pinnedVersion is the one that a VM was created with, or else the installed one.
func (d Driver) pinnedVersion(ctx context.Context, text string) (version, error) {
	if text == "" {
		return d.version(ctx)
	}
	return parseVersion("version " + text)
}

// Start starts QEMU. The process dies with the calling process.
func (d Driver) Start(ctx context.Context, c vmm.Config, console io.Writer) (vmm.Process, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the QEMU driver does not yet run guests on %s hosts", runtime.GOARCH)
	}
	v, err := d.pinnedVersion(ctx, c.Version)
	if err != nil {
		return nil, err
	}
	p := &process{config: c, console: console, done: make(chan struct{}), started: make(chan error, 1)}
	go p.run(d.binary(), argv(c, v))
	if err := <-p.started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", d.binary(), err)
	}
	if err := p.awaitSockets(ctx); err != nil {
		p.Kill()
		<-p.done
		return nil, err
	}
	return p, nil
}

type process struct {
	config  vmm.Config
	console io.Writer
	handle  vmm.Handle
	started chan error
	done    chan struct{}
	exit    vmm.Exit
	stderr  tail
	printed tail // the end of the console
}

// run starts QEMU and waits for it, all on one locked thread: the parent-death
// signal is bound to the thread that forked (prctl(2), PR_SET_PDEATHSIG), so
// that thread must live exactly as long as the child.
func (p *process) run(binary string, args []string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	if path, err := exec.LookPath(binary); err == nil {
		binary = path // for a wrapper, which does not search
	}
	words := slices.Concat(p.config.Wrap, []string{binary}, args)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = p.config.Dir
	for _, n := range p.config.NICs {
		cmd.ExtraFiles = append(cmd.ExtraFiles, n.Tap) // nil: nothing in its place
	}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&p.printed, p.console), &p.stderr
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.started <- err
		return
	}
	h, err := vmm.HandleOf(cmd.Process.Pid)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		p.started <- err
		return
	}
	p.handle = h
	p.started <- nil
	cmd.Wait()
	p.exit = p.reason(cmd.ProcessState)
	for _, name := range []string{qmpPath(p.config.Dir), channelPath(p.config.Dir), p.config.Memory} {
		os.Remove(name)
	}
}

// reason says how QEMU ended; it looks for a guest panic at the end of the
// console, because with -no-reboot a panicked guest ends QEMU with code 0.
func (p *process) reason(st *os.ProcessState) vmm.Exit {
	ws, _ := st.Sys().(syscall.WaitStatus)
	e := vmm.Exit{Code: st.ExitCode()}
	switch {
	case ws.Signaled():
		e.Code, e.Signal = 0, int(ws.Signal())
		e.Reason = fmt.Sprintf("QEMU was killed by signal %d (%s)", e.Signal, ws.Signal())
	case bytes.Contains(p.printed.buf, []byte("Kernel panic - not syncing")):
		e.Panic, e.Reason = true, "the guest kernel panicked"
	case e.Code != 0:
		e.Reason = fmt.Sprintf("QEMU failed with code %d: %s", e.Code, p.stderr.lastLine())
	default:
		e.Reason = "the guest powered off"
	}
	return e
}

// awaitSockets waits until QEMU listens, which it does before it runs the guest.
func (p *process) awaitSockets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond) // QEMU announces nothing; creation of the socket is the event
	defer tick.Stop()
	for {
		if m, err := dialMonitor(ctx, qmpPath(p.config.Dir)); err == nil {
			m.close()
			return nil
		}
		select {
		case <-p.done:
			return errors.New(p.exit.Reason)
		case <-ctx.Done():
			return fmt.Errorf("waiting for QEMU's monitor: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (p *process) Handle() vmm.Handle    { return p.handle }
func (p *process) Done() <-chan struct{} { return p.done }

// Exit is valid once Done is closed.
func (p *process) Exit() vmm.Exit { return p.exit }

// Kill ends QEMU at once, guest and all.
func (p *process) Kill() error {
	select {
	case <-p.done:
		return nil
	default:
		return syscall.Kill(p.handle.PID, syscall.SIGKILL)
	}
}

// Pause stops the guest's CPUs.
func (p *process) Pause(ctx context.Context) error { return p.command(ctx, "stop") }

// Resume lets the guest's CPUs run again.
func (p *process) Resume(ctx context.Context) error { return p.command(ctx, "cont") }

func (p *process) command(ctx context.Context, name string) error {
	m, err := dialMonitor(ctx, qmpPath(p.config.Dir))
	if err != nil {
		return fmt.Errorf("connecting to QEMU's monitor: %w", err)
	}
	defer m.close()
	return m.execute(ctx, name, nil)
}

// OpenChannel connects to the host end of the agent's virtio-serial port. QEMU
// accepts one connection at a time.
func (p *process) OpenChannel(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", channelPath(p.config.Dir))
}

// tail keeps the last tailSize bytes of what is written to it.
type tail struct{ buf []byte }

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if n := len(t.buf); n > 2*tailSize {
		t.buf = append(t.buf[:0], t.buf[n-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) lastLine() string {
	lines := strings.Split(strings.TrimSpace(string(t.buf)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "qemu-system-x86_64: ")
}
