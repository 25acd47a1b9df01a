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

	"golang.org/x/sys/unix"

	"banger/internal/text"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
	"banger/internal/vmm/pagemap"
)

// Driver starts QEMU processes. The zero value uses the host's default binary.
type Driver struct {
	// Binary overrides the name of the program. "" means qemu-system-ARCH.
	Binary string
	// CopyMemory gives a restored VM a copy of its snapshot's memory. The driver does that by itself where it could not
	// take a snapshot of a VM that maps the memory (pagemap.Allowed).
	CopyMemory bool
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

// Path returns the path of the program that Start would run.
func (d Driver) Path() (string, error) {
	path, err := exec.LookPath(d.binary())
	if err != nil {
		return "", fmt.Errorf("%s is not installed", d.binary())
	}
	return path, nil
}

// Version returns QEMU's version. It returns an error if that is below 7.2.
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

// pinnedVersion returns the version that a VM was created with, or else the installed one.
func (d Driver) pinnedVersion(ctx context.Context, text string) (version, error) {
	if text == "" {
		return d.version(ctx)
	}
	return parseVersion("version " + text)
}

// Start starts QEMU. QEMU ends when the calling process does.
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
	spares := sparePorts
	if c.Restore != "" {
		if spares, err = d.checkSnapshot(c, v); err != nil {
			return nil, err
		}
	}
	p, err := d.launch(ctx, c, v, spares, console)
	if err != nil {
		return nil, err
	}
	err = p.negotiate(ctx)
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

// launch starts QEMU and passes it descriptors of all that it uses of the host.
func (d Driver) launch(ctx context.Context, c vmm.Config, v version, spares int, console io.Writer) (_ *process,
	err error) {
	opened, closeFiles, err := c.OpenFiles()
	if err != nil {
		return nil, err
	}
	defer closeFiles()
	maps := c.Restore != "" && !d.CopyMemory && pagemap.Allowed()
	memory, err := openMemory(ctx, c, maps)
	if err != nil {
		return nil, fmt.Errorf("making the guest's memory: %w", err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		memory.Close()
		return nil, err
	}
	defer theirs.Close() // so that our end sees when QEMU has ended
	p := &process{config: c, version: v, spares: spares, monitor: newMonitor(ours), memory: memory, maps: maps}
	p.Process, err = child.Start(child.Command{
		Config:  c,
		Program: cmp.Or(c.Program, d.binary()),
		Args:    argv(c, v, maps, spares),
		Files:   handed(opened, theirs, memory),
		Console: console,
		Reason:  reason,
		Ended: func() {
			p.monitor.close()
			p.channel.close()
			memory.Close()
		},
	})
	if err != nil {
		p.monitor.close()
		memory.Close()
		return nil, err
	}
	return p, nil
}

// socketPair returns our end of a connection and QEMU's.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[0]), "ours")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return conn.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "QEMU's"), nil
}

type process struct {
	*child.Process
	config  vmm.Config
	version version
	spares  int // number of spare ports
	monitor *monitor
	channel channel
	memory  *os.File
	maps    bool // memory is a snapshot's; what the guest changes is private

	tops   map[int]placed // of drives that got overlays since the start, by their numbers
	placed []placed       // all these overlays
	unused []int          // sets of descriptors to close when the guest runs
}

// reason returns how QEMU ended. It looks for a guest panic at the end of the console, because with
// -no-reboot QEMU ends with code 0 after a guest panic.
func reason(p *child.Process, st *os.ProcessState) vmm.Exit {
	ws, _ := st.Sys().(syscall.WaitStatus)
	e := vmm.Exit{Code: st.ExitCode()}
	switch {
	case ws.Signaled():
		e.Code, e.Signal = 0, int(ws.Signal())
		e.Reason = fmt.Sprintf("QEMU was killed by signal %d (%s)", e.Signal, ws.Signal())
	case p.Stdout.Contains("Kernel panic - not syncing"):
		e.Panic, e.Reason = true, "the guest kernel panicked"
	case e.Code != 0:
		e.Reason = fmt.Sprintf("QEMU failed with code %d: %s", e.Code,
			text.Limit(strings.TrimPrefix(p.Stderr.LastLine(), "qemu-system-x86_64: "), text.MaxError))
	case p.Stdout.Contains(vmm.Restarting):
		e.Reboot, e.Reason = true, "the guest rebooted"
	default:
		e.Reason = "the guest powered off"
	}
	return e
}

// negotiate waits until QEMU answers, which it does before it runs the guest.
func (p *process) negotiate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := p.monitor.execute(ctx, "qmp_capabilities", nil)
	if err == nil || ctx.Err() != nil {
		return err
	}
	select { // prefer the end of QEMU, which explains more than the end of a connection
	case <-p.Done():
		return errors.New(p.Exit().Reason)
	case <-time.After(time.Second):
		return err
	}
}

// Pause stops the guest's CPUs.
func (p *process) Pause(ctx context.Context) error { return p.command(ctx, "stop") }

// Resume lets the guest's CPUs run again.
func (p *process) Resume(ctx context.Context) error {
	err := p.command(ctx, "cont")
	if err == nil {
		p.dropUnused(ctx)
	}
	return err
}

func (p *process) command(ctx context.Context, name string) error {
	return p.monitor.execute(ctx, name, nil)
}

// Stats returns the sums of what the guest has read and written (docs/interop/qemu-qmp-ref,
// BlockStats).
func (p *process) Stats(ctx context.Context) (s vmm.Stats, err error) {
	data, err := p.monitor.query(ctx, "query-blockstats", nil, nil)
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
