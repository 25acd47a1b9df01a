// Package server is the process of one VM's shim. It starts the VMM, confines the VMM and itself, and answers the
// daemon's calls (package shim) until the VMM ends. It must not know of images, names, SQL or HTTP.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"banger"
	"banger/internal/accept"
	"banger/internal/guest"
	"banger/internal/mux"
	"banger/internal/network"
	"banger/internal/network/netstack"
	"banger/internal/shim"
	"banger/internal/shim/decision"
	"banger/internal/shim/inlet"
	"banger/internal/splice"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

const (
	memoryLimit = 14 << 20 // target for the Go heap in bytes; a shim must stay under 20 MiB
)

// server is one running shim.
type server struct {
	daemon      uint32   // the user who may make calls, besides root
	waits       *watcher // only of a VM that becomes a template
	proc        vmm.Process
	self        vmm.Handle
	console     *console
	recorder    *recorder
	stack       *netstack.Stack // only for a user network, otherwise nil
	gate        *network.Gate   // nil without a network, and so is access
	access      *inlet.Inlet
	decisions   *decision.Log
	attribution *decision.Attribution
	log         *slog.Logger
	places      places
	wg          sync.WaitGroup
	muxMu       sync.Mutex
	mux         *mux.Mux
	muxNext     chan struct{} // closed when mux changes
	settled     chan struct{} // closed when the end of the VMM is on disk and the socket was removed
	resumed     chan struct{} // holds a value after the VM was resumed
	suspending  sync.Mutex    // held while the VM is written down
	moved       atomic.Uint64 // bytes of the streams of clients
	suspended   atomic.Bool   // the VM was written down
	disk        atomic.Value  // string: the name of the file to which the disk writes
	waiting     waiting       // set before suspended
}

// Run runs a shim from start to end. shim.Client.Start starts it in the VM's directory and with its descriptors. It
// starts the VM, writes "ready" to the first descriptor and closes it, serves until the VMM ends, and writes
// exit.json. If the start fails, Run writes the error there as one line and returns it. For a template it writes
// "ready" when the template is complete, and returns. The drivers are parameters,
// so this package need not import them.
func Run(ctx context.Context, drivers map[string]vmm.Driver) error {
	return run(ctx, drivers, os.NewFile(fdReady, "ready"), nil)
}

// RunConfined is like Run, but without rights that the VM does not need. wrap is the command that ends in ExecVMM.
func RunConfined(ctx context.Context, drivers map[string]vmm.Driver, wrap []string) error {
	return run(ctx, drivers, os.NewFile(fdReady, "ready"), wrap)
}

func run(ctx context.Context, drivers map[string]vmm.Driver, ready io.WriteCloser, wrap []string) error {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP)
	keepNoCore()
	// The jailer relies on this mask for files that the VMM's user needs.
	syscall.Umask(0o022)
	// This is the name for ps, because the program was started as /proc/self/exe.
	os.WriteFile("/proc/self/comm", []byte("banger-shim"), 0)
	s, ln, err := start(ctx, drivers, wrap)
	if err == nil && s.waits != nil {
		err = s.cut(ctx, ln)
	}
	if err != nil {
		fmt.Fprintf(ready, "%v\n", err)
		ready.Close()
		return err
	}
	io.WriteString(ready, "ready\n")
	ready.Close()
	if s.waits != nil {
		return nil
	}
	// A process that was root cannot read its own memory map (prctl(2), PR_SET_DUMPABLE).
	if err := forgetStart(); err != nil && !errors.Is(err, fs.ErrPermission) {
		s.log.Warn("the shim is larger than it need be", "err", err)
	}
	hideMemory()
	return s.serve(ctx, ln)
}

func readSpec(f *os.File) (plan, error) {
	var spec plan
	data, err := io.ReadAll(io.LimitReader(f, shim.MaxSpec))
	if err == nil {
		err = json.Unmarshal(data, &spec.Spec)
	}
	if err != nil {
		return spec, fmt.Errorf("reading %s: %w", shim.SpecFile, err)
	}
	return spec, nil
}

func start(ctx context.Context, drivers map[string]vmm.Driver, wrap []string) (*server, net.Listener, error) {
	file, err := untrusted.Open(shim.SpecFile, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	spec, err := readSpec(file)
	if err != nil {
		return nil, nil, err
	}
	if err := CloseInherited(spec.handed()); err != nil {
		return nil, nil, err
	}
	if spec.Nice > 0 {
		syscall.Setpriority(syscall.PRIO_PGRP, 0, spec.Nice) // without effect, others only wait longer
	}
	driver, ok := drivers[spec.Driver]
	if !ok {
		return nil, nil, fmt.Errorf("there is no driver %q", spec.Driver)
	}
	self, err := vmm.Self()
	if err != nil {
		return nil, nil, err
	}
	if wrap != nil {
		if err := spec.confine(wrap); err != nil {
			return nil, nil, err
		}
	}
	spec.VM = sleeping(spec.VM)
	resumes := spec.VM.Restore != "" && !spec.VM.Shared
	con, rec, err := openLogs(resumes || spec.Fork)
	if err != nil {
		return nil, nil, err
	}
	ln, err := listenControl(filepath.Join(shim.Descriptor(fdRun), shim.SocketFile))
	if err != nil {
		return nil, nil, err
	}
	s := &server{daemon: spec.Daemon, self: self, console: con, recorder: rec,
		places: newPlaces(), decisions: decision.NewLog(), log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		muxNext: make(chan struct{}), settled: make(chan struct{}), resumed: make(chan struct{}, 1)}
	s.attribution = decision.NewAttribution(s.agent(), s.decisions)
	if s.disk.Store(diskName(spec.VM)); spec.Template {
		s.waits = newWatcher(guest.Waiting)
	}
	if err := s.startVM(ctx, driver, spec); err != nil {
		ln.Close()
		return nil, nil, err
	}
	if spec.VM.From != nil { // the VMM has its files
		spec.VM.From.Close()
	}
	if resumes { // the VMM has its files open
		if err := vmm.RemoveSnapshot("."); err != nil {
			s.log.Warn("the used snapshot was not removed", "err", err)
		}
	}
	return s, ln, nil
}

// confine gives the VMM a wrapper, which reads the spec, and the files that the shim was handed, and confines the shim.
// With a jail, it confines the shim as soon as the VMM answers.
func (s *plan) confine(wrap []string) error {
	// It is opened again to read from the beginning, and stays open for every VMM that is started here.
	file, err := untrusted.Open(shim.SpecFile, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	s.VM.Wrap, s.VM.WrapFiles = wrap, []*os.File{file}
	s.VM.Dir = shim.Descriptor(fdRun)
	s.VM = handedTo(s.VM)
	if s.Jail == nil {
		return confineSelf(*s, ".", shim.Descriptor(fdRun))
	}
	s.VM.Answering = func() error {
		jail := jail{s.Jail}
		roots, err := jail.roots(s.VM.ID)
		if err != nil {
			return err
		}
		return errors.Join(jail.become(".", shim.Descriptor(fdRun)+"/."),
			confineSelf(*s, ".", shim.Descriptor(fdRun), roots...))
	}
	return nil
}

func listenControl(socket string) (net.Listener, error) {
	os.Remove(socket) // left by a shim that was killed
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return accept.Retry(ln), nil
}

// startVM starts the VMM and its network, or neither.
func (s *server) startVM(ctx context.Context, driver vmm.Driver, spec plan) error {
	nic, err := openNIC(spec, s.attribution)
	if err != nil {
		return err
	}
	defer nic.close()
	if s.proc, err = driver.Start(ctx, nic.config(spec.VM), s.output()); err != nil {
		return err
	}
	if err = s.startNetwork(nic, spec); err != nil {
		s.proc.Kill()
		<-s.proc.Done()
		s.closeNetwork()
	}
	return err
}

func (s *server) agent() guest.Client {
	return guest.Client{Dial: func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, guest.AgentPort) }}
}

// serve runs until the VMM ends. When ctx ends, it kills the VMM.
func (s *server) serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if ch, ok := s.proc.(vmm.Channeler); ok {
		s.wg.Go(func() { s.keepMux(ctx, ch) })
	}
	s.wg.Go(func() { s.accept(ctx, ln) })
	s.wg.Go(func() {
		tick := time.NewTicker(clockEvery)
		defer tick.Stop()
		s.keepClock(ctx, tick.C)
	})
	if s.access != nil {
		s.wg.Go(func() { s.access.Follow(ctx) })
	}
	recorded := make(chan struct{})
	s.wg.Go(func() {
		defer close(recorded)
		s.keepOutput(ctx)
	})
	select {
	case <-s.proc.Done():
	case <-ctx.Done():
		s.proc.Kill()
		<-s.proc.Done()
	}
	s.console.close()
	select {
	case <-recorded:
	case <-time.After(recordTime):
	}
	s.recorder.log.Close()
	s.closeNetwork()
	err := errors.Join(s.decisions.Save(shim.DecisionsFile), s.recordExit())
	ln.Close()
	close(s.settled)
	cancel()
	s.wg.Wait()
	s.waiting.close()
	return err
}

// recordExit stores the reason of the end for a daemon that does not run now.
func (s *server) recordExit() error {
	data, err := json.Marshal(s.status())
	if err != nil {
		return err
	}
	const tmp = shim.ExitFile + ".tmp"
	if err := untrusted.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, shim.ExitFile)
}

func (s *server) accept(ctx context.Context, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		client := conn.(*net.UnixConn)
		if !s.mayCall(client) || !take(s.places.fresh) {
			conn.Close()
			continue
		}
		s.wg.Go(func() { s.handle(ctx, client) })
	}
}

// handle serves one connection. The connection has a place among the fresh ones until its call is read.
func (s *server) handle(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	place := s.places.fresh
	defer func() { <-place }()
	conn.SetReadDeadline(time.Now().Add(shim.CallTime))
	line, file, err := readCall(conn)
	if err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	call, arg, _ := strings.Cut(line, " ")
	if file != nil && call != shim.CallForward && call != shim.CallCarry {
		file.Close()
		file = nil
	}
	p := s.places.of(call)
	if !take(p) {
		file.Close()
		if p == s.places.requests || p == s.places.streams { // the answers of other calls cannot carry an error
			fmt.Fprintf(conn, "ERR %d %s\n", cap(p), shim.AllTaken)
		}
		return
	}
	<-place
	place = p
	switch call {
	case shim.CallConnect:
		s.connect(ctx, conn, arg, splice.Copy)
	case shim.CallOffer:
		s.connect(ctx, conn, arg, s.offered)
	case shim.CallMain:
		s.connect(ctx, conn, arg, s.offerMain)
	case shim.CallConsole, shim.CallDecisions, shim.CallOutput:
		s.follow(ctx, conn, call, arg)
	case shim.CallSnapshot:
		paused, err := s.snapshot(arg)
		st := failed(s.status(), err)
		st.Paused = paused.Milliseconds()
		conn.SetWriteDeadline(time.Now().Add(shim.CallTime))
		json.NewEncoder(conn).Encode(st)
	case shim.CallSettled:
		s.suspending.Lock() // held while a snapshot is taken
		st := s.status()
		s.suspending.Unlock()
		conn.SetWriteDeadline(time.Now().Add(shim.CallTime))
		json.NewEncoder(conn).Encode(st)
	case shim.CallSuspend:
		files, err := s.suspend()
		conn.SetWriteDeadline(time.Now().Add(shim.CallTime))
		answerSuspend(conn, failed(s.status(), err), files)
	default:
		st := s.control(ctx, conn, call, arg, file)
		conn.SetWriteDeadline(time.Now().Add(shim.CallTime))
		json.NewEncoder(conn).Encode(st)
	}
}

// follow answers a call with data until the VMM ends or the client has gone.
func (s *server) follow(ctx context.Context, conn *net.UnixConn, call, arg string) {
	ctx, stop := network.WithPeer(ctx, conn)
	defer stop()
	var tail int
	var follow, all bool
	switch call {
	case shim.CallDecisions:
		if n, _ := fmt.Sscan(arg, &tail, &follow, &all); n >= 2 { // an earlier daemon does not say the third
			s.decisions.Write(ctx, s.proc.Done(), all, tail, follow, conn)
		}
	case shim.CallConsole:
		if _, err := fmt.Sscan(arg, &tail); err == nil {
			s.console.follow(ctx, s.proc.Done(), tail, conn)
		}
	case shim.CallOutput:
		if view, err := shim.ParseView(arg); err == nil {
			s.recorder.log.Follow(ctx, view, conn)
		}
	}
}

func (s *server) control(ctx context.Context, conn net.Conn, call, arg string, file *os.File) shim.Status {
	ctx, cancel := context.WithTimeout(ctx, shim.CallTime)
	defer cancel()
	var err error
	var ports []banger.Listener
	var stats shim.Stats
	switch call {
	case shim.CallStatus:
	case shim.CallWatch:
		s.watch(conn)
	case shim.CallKill:
		err = s.proc.Kill()
		<-s.settled
	case shim.CallPause:
		err = s.proc.Pause(ctx)
	case shim.CallResume:
		err = s.resume(ctx)
	case shim.CallClock:
		err = s.syncClock(ctx, true)
	case shim.CallStats:
		stats, err = s.stats(ctx)
	case shim.CallDeny:
		var d banger.Decision
		if err = json.Unmarshal([]byte(arg), &d); err == nil {
			s.attribution.Note(d)
		}
	case shim.CallPorts, shim.CallForward, shim.CallRelease, shim.CallPolicy, shim.CallOnce, shim.CallAccept,
		shim.CallCarry:
		ports, err = s.networkCall(ctx, call, arg, file)
	default:
		err = fmt.Errorf("unknown call %q", call)
	}
	st := failed(s.status(), err)
	st.Ports, st.Stats = ports, stats
	return st
}

// watch returns when the end of the VMM is on disk, or when the client has gone.
func (s *server) watch(conn net.Conn) {
	// No parent context is needed, because serve kills the VMM before it ends.
	ctx, stop := network.WithPeer(context.Background(), conn)
	defer stop()
	select {
	case <-s.settled:
	case <-ctx.Done():
	}
}

func (s *server) status() shim.Status {
	m, _ := s.currentMux()
	st := shim.Status{Shim: s.self, VMM: s.proc.Handle(), Agent: m != nil}
	st.Disk, _ = s.disk.Load().(string)
	select {
	case <-s.proc.Done():
		st.Ended, st.Exit = true, s.proc.Exit()
		if s.suspended.Load() {
			st.Exit, st.Ports = vmm.Exit{Reason: "suspended"}, s.waiting.listeners
		}
	default:
	}
	return st
}

// connect opens a stream to the agent and calls join to connect the client's connection to it.
func (s *server) connect(ctx context.Context, conn *net.UnixConn, arg string,
	join func(ctx context.Context, conn, stream net.Conn)) {
	port, err := strconv.ParseUint(arg, 10, 32)
	if err != nil {
		return
	}
	stream, err := s.dialFor(ctx, conn, uint32(port))
	if err != nil {
		fmt.Fprintf(conn, "ERR %v\n", err)
		return
	}
	if _, err := fmt.Fprintf(conn, "OK %d\n", port); err != nil {
		stream.Close()
		return
	}
	join(ctx, conn, stream)
}

// dialFor opens a stream to the agent for conn. It gives up when the peer of conn has gone.
func (s *server) dialFor(ctx context.Context, conn net.Conn, port uint32) (net.Conn, error) {
	ctx, stop := network.WithPeer(ctx, conn)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, shim.ConnectTime)
	defer cancel()
	return s.dial(ctx, port)
}
