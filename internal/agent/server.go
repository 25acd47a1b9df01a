package agent

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/guest"
)

// requestTimeout bounds how long a stream may stay open without a request.
const requestTimeout = 10 * time.Second

// server answers the host's requests, each on a stream of its own.
type server struct {
	duties   duties
	reaper   *reaper
	group    *commandGroup // where commands run; nil: where the agent does
	sshSlots chan struct{} // one for each SSH connection
	sshLimit time.Duration // for a handshake of SSH

	mu         sync.Mutex
	config     guest.Config
	main       *process
	mainUp     chan struct{} // closed when main is set
	mainTold   chan struct{} // closed when the client of the main command knows its end; nil: it has none
	stopping   bool
	how        ending // of the shutdown that stopping is about
	configured bool
	clockSets  int64 // how often the host has set the clock
}

func newServer(d duties) *server {
	return &server{duties: d, reaper: newReaper(), mainUp: make(chan struct{}), sshSlots: make(chan struct{}, sshConnections), sshLimit: sshHandshake}
}

// handle serves one stream.
func (s *server) handle(port uint32, conn net.Conn) {
	defer conn.Close()
	if port != guest.AgentPort {
		return
	}
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	frames := banger.NewFrameReader(conn)
	t, p, err := frames.Next()
	if err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	var req guest.Request
	if t != banger.FrameRequest || json.Unmarshal(p, &req) != nil {
		sendError(conn, banger.Errorf(banger.CodeInvalid, "the first frame is no request"))
		return
	}
	switch req.Op {
	case guest.OpExec:
		s.exec(conn, frames, req.Exec)
	case guest.OpWait:
		s.wait(conn, frames)
	case guest.OpChanges:
		s.changes(conn)
	case guest.OpPorts:
		s.watchPorts(conn, frames)
	case guest.OpOwner:
		banger.WriteJSONFrame(conn, banger.FrameResponse, owner(req.Protocol, req.Port))
	case guest.OpDial:
		s.dialLocal(conn, req.Port)
	case guest.OpReady:
		s.ready(conn, frames)
	case guest.OpClock:
		s.clock(conn, req.Clock)
	case guest.OpSSH:
		s.ssh(conn, req.SSH)
	case guest.OpFileStat, guest.OpArchive, guest.OpExtract:
		s.files(conn, frames, req)
	default:
		if err := s.simple(req); err != nil {
			sendError(conn, err)
			return
		}
		banger.WriteJSONFrame(conn, banger.FrameResponse, info())
		if req.Op == guest.OpShutdown {
			// The host closes the stream when it has the answer.
			conn.SetReadDeadline(time.Now().Add(time.Second))
			frames.Next()
			s.shutdown(time.Duration(req.Grace)*time.Millisecond, hostEnds)
		}
	}
}

func info() guest.Info {
	var si unix.Sysinfo_t
	unix.Sysinfo(&si)
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return guest.Info{Version: guest.Version, Kernel: kernelRelease(), UptimeMillis: ts.Nano() / 1e6}
}

func (s *server) simple(req guest.Request) error {
	switch req.Op {
	case guest.OpPing, guest.OpShutdown:
		return nil
	case guest.OpConfigure:
		return s.configure(req.Config)
	case guest.OpRestored:
		return s.restored(req.Config)
	case guest.OpStart:
		return s.startMain(req.Exec)
	case guest.OpSignal:
		main := s.mainProcess()
		if main == nil {
			return banger.Errorf(banger.CodeConflict, "no main command runs")
		}
		return main.signal(syscall.Signal(req.Signal))
	}
	return banger.Errorf(banger.CodeInvalid, "the agent knows no operation %q", req.Op)
}

// configure is idempotent: the host asks again when its first answer was lost.
func (s *server) configure(c *guest.Config) error {
	if c == nil {
		return banger.Errorf(banger.CodeInvalid, "configure without a configuration")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.configured {
		return nil
	}
	s.clockSets++
	if err := s.duties.configure(*c); err != nil {
		return err
	}
	s.config, s.configured = *c, true
	return nil
}

// restored makes another VM of the guest of a snapshot. It may be asked again.
func (s *server) restored(c *guest.Config) error {
	if c == nil || len(c.Seed) < guest.MinSeed || len(c.Seed) > guest.MaxSeed {
		return banger.Errorf(banger.CodeInvalid, "restored needs a configuration with a seed of %d to %d bytes", guest.MinSeed, guest.MaxSeed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.configured {
		return banger.Errorf(banger.CodeConflict, "the guest was never configured")
	}
	s.clockSets++
	if err := s.duties.restored(*c); err != nil {
		return err
	}
	s.config = *c
	return nil
}

// launch starts a command; the main one only once per boot.
func (s *server) launch(e *banger.Exec) (*process, error) { return s.launchAs(e, manner{}) }

// launchAs is launch with what only SSH asks for.
func (s *server) launchAs(e *banger.Exec, how manner) (*process, error) {
	if e == nil {
		return nil, banger.Errorf(banger.CodeInvalid, "no command given")
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, banger.Errorf(banger.CodeConflict, "the VM is shutting down")
	}
	if e.Main && s.main != nil {
		return nil, banger.Errorf(banger.CodeConflict, "the main command was started already")
	}
	if !how.helper {
		how.group = s.group
	}
	p, err := s.reaper.launch(*e, how)
	if err == nil && e.Main {
		s.main = p
		close(s.mainUp)
	}
	return p, err
}

func (s *server) mainProcess() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main
}

// startMain runs the main command with its output on the console.
func (s *server) startMain(e *banger.Exec) error {
	p, err := s.launch(e)
	if err != nil {
		return err
	}
	go toConsole(p)
	return nil
}

// toConsole copies a command's output to the console until it ends.
func toConsole(p *process) {
	console, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	var w io.Writer = console
	if err != nil {
		w = os.Stdout
	} else {
		defer console.Close()
	}
	var wg sync.WaitGroup
	for _, f := range []*os.File{p.stdout, p.stderr} {
		if f != nil {
			wg.Go(func() { io.Copy(w, f) })
		}
	}
	wg.Wait()
	<-p.done
	p.closeStdio()
}

// wait answers when the main command has ended, unless the client goes first.
func (s *server) wait(conn net.Conn, frames *banger.FrameReader) {
	gone := make(chan struct{})
	go func() { // ends with the stream
		frames.Next()
		close(gone)
	}()
	select {
	case <-s.mainUp:
	case <-gone:
		return
	}
	main := s.mainProcess()
	select {
	case <-main.done:
		if s.reboots() { // then it is not the end of the VM's main command
			<-gone
			return
		}
		banger.WriteJSONFrame(conn, banger.FrameExit, main.exit)
	case <-gone:
	}
}

// shutdown asks the main command to end, then leaves the rest to the duties.
func (s *server) shutdown(grace time.Duration, how ending) {
	s.group.thaw() // what is frozen cannot end
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return
	}
	s.stopping, s.how = true, how
	main, sig := s.main, syscall.Signal(s.config.StopSignal)
	s.mu.Unlock()
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	deadline := time.Now().Add(grace)
	if main != nil {
		main.signal(sig)
		select {
		case <-main.done:
			s.awaitMainTold() // the host may know the end already, and this guest's end would cut the client off
		case <-time.After(grace):
		}
	}
	s.duties.shutdown(time.Until(deadline), main, how)
}

func sendError(conn net.Conn, err error) {
	e := banger.Error{Code: banger.CodeOf(err), Message: err.Error()}
	if ours, ok := err.(*banger.Error); ok && ours.Hint != "" {
		flat := *ours
		flat.Hint = ""
		e.Message, e.Hint = flat.Error(), ours.Hint
	}
	banger.WriteJSONFrame(conn, banger.FrameError, &e)
}
