// Package firecracker is the vmm.Driver for Firecracker. It turns a vmm.Config into calls
// of Firecracker's API, owns the process and its pipes, and offers the agent's vsock.
//
// It must not know what the drives hold, where the kernel came from, or who talks over
// the vsock. What it knows of Firecracker is its API description and its documents; what
// could not be tried on real hardware is listed in docs/SPECIFICATION.md.
package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// Driver starts Firecracker processes. The zero value uses the one in PATH.
type Driver struct {
	Binary string // overrides the name of the program; "" means firecracker
}

// title is Firecracker's name at the beginning of a sentence.
const title = "Firecracker"

const startTimeout = 30 * time.Second

// Name returns "firecracker".
func (Driver) Name() string { return "firecracker" }

func (d Driver) binary() string { return cmp.Or(d.Binary, "firecracker") }

// Path returns the path of the program that Start would run.
func (d Driver) Path() (string, error) {
	path, err := exec.LookPath(d.binary())
	if err != nil {
		return "", fmt.Errorf("%s is not installed", d.binary())
	}
	return filepath.Abs(path)
}

// Version returns Firecracker's version. It returns an error if that is below 1.12.0.
func (d Driver) Version(ctx context.Context) (string, error) {
	path, err := d.Path()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if errors.Is(err, syscall.ENOEXEC) {
		return "", fmt.Errorf("%s is not a program for this host's CPUs", path)
	}
	if err != nil {
		return "", fmt.Errorf("running %s --version: %w", path, err)
	}
	if !strings.Contains(string(out), "Firecracker") {
		return "", fmt.Errorf("%s is not Firecracker", path)
	}
	v, err := parseVersion(string(out))
	if err == nil && v.less(minVersion) {
		err = fmt.Errorf("%s %s is too old, %s or later is needed", title, v, minVersion)
	}
	return v.String(), err
}

// Start starts Firecracker, configures it and starts the guest. Firecracker ends when the calling
// process does.
func (d Driver) Start(ctx context.Context, c vmm.Config, console io.Writer) (vmm.Process, error) {
	text, err := c.Version, error(nil)
	if text == "" {
		if text, err = d.Version(ctx); err != nil {
			return nil, err
		}
	}
	v, err := parseVersion(text)
	if err != nil {
		return nil, err
	}
	if err := check(c, v); err != nil {
		return nil, err
	}
	o, err := readOptions(c, v)
	if err != nil {
		return nil, err
	}
	if err := c.CheckBases(); err != nil {
		return nil, err
	}
	j, err := readJail(c, cmp.Or(c.Program, d.binary()))
	if err != nil {
		return nil, err
	}
	view := outside(c) // paths as the VMM sees them
	if j != nil {
		view = j.inside(c)
	}
	o.spares = spareDrives
	if c.Restore != "" {
		if err := checkSnapshot(c, v, &o, j != nil); err != nil {
			return nil, err
		}
	}
	s, err := openSaves(c, j)
	if err != nil {
		return nil, err
	}
	defer s.close()
	requests, patience := bootRequests(view, v, o), startTimeout
	if c.Restore != "" {
		requests, patience = restoreRequests(view, s, v, o), snapshotTimeout
	}
	p, err := d.launch(c, o, j, s, console)
	if err != nil {
		return nil, err
	}
	p.version = v
	p.lived.Store(c.Restore != "") // the agent already listened when the snapshot was taken
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.configure(ctx, requests); err != nil {
		return nil, p.abandon(err)
	}
	return p, nil
}

// configure makes the requests of a start, once Firecracker answers.
func (p *process) configure(ctx context.Context, requests []request) error {
	err := p.awaitAPI(ctx, p.version)
	if err == nil && p.config.Answering != nil {
		err = p.config.Answering()
	}
	for _, r := range requests {
		if err == nil {
			err = p.send(ctx, r)
		}
	}
	return err
}

// send makes one request of a start. The load of a snapshot also lets the guest go on. If Firecracker refuses it, the
// guest has not run.
func (p *process) send(ctx context.Context, r request) error {
	if r.path != loadPath {
		return p.api.call(ctx, r.method, r.path, r.body, nil)
	}
	undo, err := p.config.Resume()
	if err != nil {
		return err
	}
	err = p.api.call(ctx, r.method, r.path, r.body, nil)
	var refused *fault
	if errors.As(err, &refused) {
		undo()
	}
	return err
}

// launch starts the process without a guest.
func (d Driver) launch(c vmm.Config, o options, j *jail, s saves, console io.Writer) (_ *process, err error) {
	var root *os.File
	defer func() {
		if err != nil {
			root.Close() // does nothing if root is nil
		}
	}()
	program, args, files := cmp.Or(c.Program, d.binary()), arguments(c, o), append(c.Files(), s.files...)
	if j != nil {
		if root, err = j.make(c); err != nil {
			return nil, err
		}
		// The shim becomes the VM's user, who may not be able to reach the directory by its path.
		c.Dir, files = fmt.Sprintf("/proc/self/fd/%d", root.Fd()), nil
		program, args = j.jailer, j.arguments(c, o)
	}
	log, err := openLog(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("making the VMM's log: %w", err)
	}
	metrics, err := openMetrics(c.Dir)
	if err != nil {
		log.close()
		return nil, fmt.Errorf("making the pipe of the VMM's metrics: %w", err)
	}
	drives, err := makeSpares(c.Dir, o.spares)
	if err == nil && j != nil {
		err = j.own(append(drives, log.path, metrics.path)...)
	}
	if err != nil {
		removeSpares(c.Dir)
		log.close()
		metrics.close()
		return nil, err
	}
	p := &process{config: c, root: root, saves: s, spares: o.spares, log: log, metrics: metrics, pausing: newPausing(),
		api: newClient(filepath.Join(c.Dir, apiSocket))}
	words := &lastWords{to: console, ready: make(chan struct{}), said: func() { p.powerOff() }}
	p.Process, err = child.Start(child.Command{Config: c, Program: program, Args: args,
		Files: files, Console: words, Reason: p.reason, Ended: p.clean})
	if err != nil {
		p.clean()
		return nil, err
	}
	close(words.ready)
	return p, nil
}

// arguments returns the arguments of the program.
func arguments(c vmm.Config, o options) []string {
	return append([]string{"--id", c.ID}, ownArguments(outside(c).Dir, o)...)
}

// outside returns c with the paths that a VMM without a jail uses. Its working directory is c.Dir.
// It opens the files that it is handed again through /proc/self/fd, which needs no access to any
// directory.
func outside(c vmm.Config) vmm.Config {
	c.Dir = "."
	fd := firstFile + len(c.WrapFiles)
	name := func(f *os.File, path string) string {
		fd++
		if f == nil {
			return path
		}
		return fmt.Sprintf("/proc/self/fd/%d", fd-1)
	}
	c.Kernel, c.Initrd = name(c.KernelFile, c.Kernel), name(c.InitrdFile, c.Initrd)
	c.Drives = slices.Clone(c.Drives)
	for i, d := range c.Drives {
		c.Drives[i].Path = name(d.File, d.Path)
	}
	return c
}

// firstFile is the first descriptor after stdio.
const firstFile = 3

// ownArguments returns the arguments that are the same in a jail. They set a log level: without
// one, Firecracker prints its actions and requests on the guest's console until the API sets the
// log's file.
func ownArguments(dir string, o options) []string {
	args := []string{"--api-sock", filepath.Join(dir, apiSocket), "--level", levelWarning}
	if o.pci {
		args = append(args, "--enable-pci")
	}
	return args
}

// process is one Firecracker.
type process struct {
	*child.Process
	config  vmm.Config
	root    *os.File // of the jail; nil without a jail
	saves   saves    // its files are closed
	spares  int      // number of spare drives
	version version
	api     *client
	log     *logEnd
	metrics *metrics
	pausing pausing
	paused  atomic.Bool
	lived   atomic.Bool // the guest has answered on its vsock
	halted  atomic.Bool // the guest has shut itself down
}

// awaitAPI waits until the API answers, and checks that the answer is Firecracker's, of version v.
func (p *process) awaitAPI(ctx context.Context, v version) error {
	tick := time.NewTicker(2 * time.Millisecond) // polls: there is no event for a new socket
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(p.config.Dir, apiSocket)); err == nil {
			var info InstanceInfo
			err := p.api.call(ctx, http.MethodGet, "/", nil, &info)
			if err == nil {
				return p.checkInstance(info, v)
			}
			if !errors.Is(err, syscall.ECONNREFUSED) { // the server binds before it listens
				return err
			}
		}
		select {
		case <-p.Done():
			return errors.New(p.Exit().Reason)
		case <-ctx.Done():
			return fmt.Errorf("waiting for Firecracker's API: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (p *process) checkInstance(info InstanceInfo, v version) error {
	if info.ID != p.config.ID {
		return fmt.Errorf("the API is that of VM %.40q", info.ID)
	}
	if is, err := parseVersion(info.VMMVersion); err != nil || is != v {
		return fmt.Errorf("the API is that of version %.40q, and %s was expected", info.VMMVersion, v)
	}
	return nil
}

// abandon ends a process whose start has failed, and returns the reason.
func (p *process) abandon(err error) error {
	err = p.endOr(err)
	p.Kill()
	<-p.Done()
	return err
}

// endOr returns how the process has ended, if it has, and else err: the end explains more than a
// broken connection. A fault explains itself and is returned as it is.
func (p *process) endOr(err error) error {
	var refused *fault
	if !errors.As(err, &refused) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		select {
		case <-p.Done():
			return errors.New(p.Exit().Reason)
		case <-time.After(100 * time.Millisecond): // the connection breaks before the end is seen
		}
	}
	return err
}

// powerOff ends a VMM whose guest has halted.
func (p *process) powerOff() {
	p.halted.Store(true)
	p.Kill()
}

// clean removes the files that the process leaves.
func (p *process) clean() {
	p.log.close()
	p.metrics.close()
	for _, name := range []string{apiSocket, vsockSocket} {
		os.Remove(filepath.Join(p.config.Dir, name))
	}
	removeSpares(p.config.Dir)
	p.root.Close() // does nothing if root is nil
}

// Dial opens a connection to a vsock port of the guest.
func (p *process) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := dialVsock(ctx, filepath.Join(p.config.Dir, vsockSocket), port, p.lived.Load(), p.Done())
	switch {
	case err == nil:
		p.lived.Store(true)
	case errors.Is(err, errVsockDead) && p.paused.Load():
		err = errors.New("the VM is paused")
	}
	return conn, err
}
