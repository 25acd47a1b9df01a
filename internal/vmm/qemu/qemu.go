// Package qemu is the vmm.Driver for QEMU system emulation, with KVM or without
// (TCG). It turns a vmm.Config into an argv, owns the process and its QMP
// monitor, and offers the agent's virtio-serial port as a byte channel.
//
// It must not know what the drives hold, where the kernel came from, or who
// talks over the channel.
package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"banger/internal/text"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
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
	if len(c.Options) > 0 {
		return nil, errors.New("the QEMU driver has no options")
	}
	if c.Restore != "" {
		if err := d.checkSnapshot(c, v); err != nil {
			return nil, err
		}
	}
	command := child.Command{Config: c, Program: cmp.Or(c.Program, d.binary()), Args: argv(c, v), Console: console, Reason: reason,
		Ended: func() {
			for _, name := range []string{qmpPath(c.Dir), channelPath(c.Dir), c.Memory} {
				os.Remove(name)
			}
		}}
	for _, n := range c.NICs {
		command.Files = append(command.Files, n.Tap) // nil: nothing in its place
	}
	started, err := child.Start(command)
	if err != nil {
		return nil, err
	}
	p := &process{Process: started, config: c, version: v}
	err = p.awaitSockets(ctx)
	if err == nil && c.Restore != "" {
		err = p.restore(ctx)
	}
	if err != nil {
		p.Kill()
		<-p.Done()
		return nil, err
	}
	return p, nil
}

type process struct {
	*child.Process
	config  vmm.Config
	version version
}

// reason says how QEMU ended; it looks for a guest panic at the end of the
// console, because with -no-reboot a panicked guest ends QEMU with code 0.
func reason(p *child.Process, st *os.ProcessState) vmm.Exit {
	ws, _ := st.Sys().(syscall.WaitStatus)
	e := vmm.Exit{Code: st.ExitCode()}
	switch {
	case ws.Signaled():
		e.Code, e.Signal = 0, int(ws.Signal())
		e.Reason = fmt.Sprintf("QEMU was killed by signal %d (%s)", e.Signal, ws.Signal())
		if ws.Signal() == syscall.SIGBUS { // of a file that is mapped
			e.Reason += ": the disk that holds the guest's memory is full, perhaps"
		}
	case p.Stdout.Contains("Kernel panic - not syncing"):
		e.Panic, e.Reason = true, "the guest kernel panicked"
	case e.Code != 0:
		e.Reason = fmt.Sprintf("QEMU failed with code %d: %s", e.Code, text.Limit(strings.TrimPrefix(p.Stderr.LastLine(), "qemu-system-x86_64: "), text.MaxError))
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
		case <-p.Done():
			return errors.New(p.Exit().Reason)
		case <-ctx.Done():
			return fmt.Errorf("waiting for QEMU's monitor: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// Pause stops the guest's CPUs.
func (p *process) Pause(ctx context.Context) error { return p.command(ctx, "stop") }

// Resume lets the guest's CPUs run again.
func (p *process) Resume(ctx context.Context) error { return p.command(ctx, "cont") }

func (p *process) command(ctx context.Context, name string) error {
	_, err := p.ask(ctx, name)
	return err
}

// ask runs one command of the monitor and returns its answer.
func (p *process) ask(ctx context.Context, name string) (json.RawMessage, error) {
	m, err := dialMonitor(ctx, qmpPath(p.config.Dir))
	if err != nil {
		return nil, fmt.Errorf("connecting to QEMU's monitor: %w", err)
	}
	defer m.close()
	return m.query(ctx, name, nil, nil)
}

// Stats adds up what the guest has read and written (docs/interop/qemu-qmp-ref, BlockStats).
func (p *process) Stats(ctx context.Context) (s vmm.Stats, err error) {
	data, err := p.ask(ctx, "query-blockstats")
	if err != nil {
		return s, err
	}
	var devices []struct {
		Stats struct {
			Read    uint64 `json:"rd_bytes"`
			Written uint64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(data, &devices); err != nil {
		return s, fmt.Errorf("reading QEMU's answer to query-blockstats: %w", err)
	}
	for _, d := range devices {
		s.DiskRead += d.Stats.Read
		s.DiskWritten += d.Stats.Written
	}
	return s, nil
}

// OpenChannel connects to the host end of the agent's virtio-serial port. QEMU
// accepts one connection at a time.
func (p *process) OpenChannel(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", channelPath(p.config.Dir))
}
