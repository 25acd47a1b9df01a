package agent

import (
	"cmp"
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/boot"
	"banger/internal/agent/command"
	"banger/internal/agent/console"
	"banger/internal/agent/output"
	"banger/internal/agent/probe"
	"banger/internal/agent/secret"
	"banger/internal/agent/session"
	"banger/internal/agent/sshd"
	"banger/internal/agent/stream"
	"banger/internal/agent/workspace"
	"banger/internal/frame"
	"banger/internal/guest"
)

// requestTimeout bounds how long a stream may stay open without a request.
const requestTimeout = 10 * time.Second

// server answers the host's requests, each on a stream of its own.
type server struct {
	system   system
	commands *command.Reaper
	sshd     *sshd.Server
	sessions *session.Manager

	workspaces *workspace.Manager
	secrets    *secret.Store

	suspending sync.Mutex // held while the guest is suspended, thawed or restored; taken before mu

	mu          sync.Mutex
	config      guest.Config
	main        *command.Process
	mainExec    banger.Exec
	watch       *probe.Watch           // nil without a ready probe
	mainUp      chan struct{}          // closed when main is set
	output      *output.Log            // what the main command writes
	mainReports map[chan struct{}]bool // each is closed when a client knows the main command's end
	clients     map[*client]bool       // those whose streams a suspend ends
	suspended   bool                   // no command may start
	held        *hold                  // nil unless the streams stay while the VM is suspended
	stopping    bool
	how         boot.Ending // of the shutdown that stopping is about
	configured  bool
	set         chan struct{} // closed when configured is set
	clockSets   int64         // how often the host has set the clock
}

// capabilities are the operations that handle serves.
var capabilities = []string{
	guest.OpConfigure, guest.OpRestored, guest.OpPing, guest.OpReady, guest.OpExec, guest.OpStart, guest.OpWait,
	guest.OpSignal, guest.OpChanges, guest.OpFileStat, guest.OpFileList, guest.OpArchive, guest.OpExtract, guest.OpPorts,
	guest.OpOwner, guest.OpClock, guest.OpDial, guest.OpSSH, guest.OpShutdown, guest.OpProcesses, guest.OpSuspend,
	guest.OpThaw,
	guest.OpOutput, guest.OpDelivered, guest.OpAttach, guest.OpHealth, guest.OpSessionReady,
	guest.OpSessions, guest.OpSession, guest.OpSessionStart, guest.OpSessionSignal, guest.OpSessionStop,
	guest.OpSessionRemove, guest.OpSessionWait, guest.OpSessionSend, guest.OpSessionAttach, guest.OpCompare,
	guest.OpWorkspaces, guest.OpWorkspacePrepare, guest.OpWorkspaceChanges, guest.OpWorkspaceReset,
	guest.OpWorkspaceUpdate, guest.OpWorkspaceRemove, guest.OpSecrets,
}

// newServer returns the server of a system, whose commands run in group.
func newServer(sys system, group *command.Group) *server {
	s := &server{system: sys, commands: command.NewReaper(group), mainUp: make(chan struct{}), set: make(chan struct{}),
		output: output.New(), mainReports: map[chan struct{}]bool{}, clients: map[*client]bool{}}
	s.sshd = sshd.New(s)
	s.sessions = session.New(s.Start)
	s.workspaces = workspace.New(boot.Modprobe)
	s.secrets = secretsOf(sys)
	return s
}

// handle serves one stream.
func (s *server) handle(port uint32, conn net.Conn) {
	defer conn.Close()
	if port != guest.AgentPort {
		return
	}
	conn.SetReadDeadline(time.Now().Add(requestTimeout))
	frames := frame.NewReader(conn)
	t, p, err := frames.Next()
	if err != nil {
		return
	}
	conn.SetReadDeadline(time.Time{})
	var req guest.Request
	if t != frame.Request || json.Unmarshal(p, &req) != nil {
		sendError(conn, banger.Errorf(banger.CodeInvalid, "the first frame is not a request"))
		return
	}
	if strings.HasPrefix(req.Op, guest.OpSession) {
		sessionStreams{s}.session(conn, frames, req)
		return
	}
	if strings.HasPrefix(req.Op, "workspace") && slices.Contains(capabilities, req.Op) {
		workspaceStreams{s}.workspace(conn, frames, req)
		return
	}
	s.serve(conn, frames, req)
}

// serve serves the request of a stream.
func (s *server) serve(conn net.Conn, frames *frame.Reader, req guest.Request) {
	switch req.Op {
	case guest.OpExec:
		s.exec(conn, frames, req.Exec)
	case guest.OpAttach:
		s.attach(conn, frames, req.Size)
	case guest.OpWait:
		s.wait(conn, frames)
	case guest.OpOutput:
		if err := s.output.Send(conn, frames, req.Position); err != nil {
			sendError(conn, err)
		}
	case guest.OpChanges:
		s.changes(conn)
	case guest.OpCompare:
		s.compare(conn, req.Patch)
	case guest.OpPorts:
		s.watchPorts(conn, frames)
	case guest.OpOwner:
		frame.WriteJSON(conn, frame.Response, owner(req.Protocol, req.Port))
	case guest.OpProcesses:
		frame.WriteJSON(conn, frame.Response, processes())
	case guest.OpDial:
		s.dialLocal(conn, req.Port)
	case guest.OpReady:
		s.ready(conn, frames)
	case guest.OpHealth:
		s.health(conn, frames, time.Duration(req.Wait)*time.Millisecond)
	case guest.OpSuspend:
		s.suspend(conn, frames, req.Keep)
	case guest.OpClock:
		s.clock(conn, req.Clock)
	case guest.OpSSH:
		s.ssh(conn, req.SSH)
	case guest.OpFileStat, guest.OpFileList, guest.OpArchive, guest.OpExtract:
		s.files(conn, frames, req)
	default:
		if err := s.simple(req); err != nil {
			sendError(conn, err)
			return
		}
		frame.WriteJSON(conn, frame.Response, info())
		if req.Op == guest.OpShutdown {
			// The host closes the stream when it has the answer.
			conn.SetReadDeadline(time.Now().Add(time.Second))
			frames.Next()
			s.shutdown(time.Duration(req.Grace)*time.Millisecond, boot.HostEnds)
		}
	}
}

// info returns the agent's description of itself and its guest.
func info() guest.Info {
	var si unix.Sysinfo_t
	unix.Sysinfo(&si)
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return guest.Info{Version: guest.Version, Oldest: guest.Oldest, Capabilities: capabilities,
		Kernel: boot.KernelRelease(), UptimeMillis: ts.Nano() / 1e6}
}

// simple serves the requests that need nothing but an answer.
func (s *server) simple(req guest.Request) error {
	switch req.Op {
	case "":
		return banger.Errorf(banger.CodeInvalid, "the request names no operation")
	case guest.OpPing, guest.OpShutdown:
		return nil
	case guest.OpConfigure:
		return s.configure(req.Config)
	case guest.OpRestored:
		return s.restored(req.Config)
	case guest.OpThaw:
		s.thaw()
		return nil
	case guest.OpDelivered:
		s.awaitMainReports()
		return nil
	case guest.OpStart:
		return s.startMain(req.Exec)
	case guest.OpSecrets:
		return secretRequests{s}.change(req.Secrets)
	case guest.OpSignal:
		main := s.mainProcess()
		if main == nil {
			return banger.Errorf(banger.CodeConflict, "no main command runs")
		}
		return main.Signal(syscall.Signal(req.Signal))
	}
	return banger.Errorf(banger.CodeVersion, "the agent of this VM knows no operation %.40q", req.Op).
		WithHint("the VM runs with an earlier agent; a stop and a start give it this one")
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
	var given error
	err := s.system.Configure(*c, func() { // before a program of the image runs
		workspaceStreams{s}.open()
		given = s.secrets.Set(c.Secrets, c.User)
	})
	if err = cmp.Or(err, given); err != nil {
		return err
	}
	s.commands.LimitCPU(c.Confine.CPU)
	s.config, s.configured = *c, true
	s.config.Secrets = nil // only their files have them
	close(s.set)
	s.openSessions()
	if c.Ready != nil {
		s.watch = probe.New(*c.Ready, s.tryCommand, func() {})
		go s.watchReady(c.NoMain) // for life
	}
	return nil
}

// restored makes a guest that goes on from a snapshot a VM of its own, and then lets its processes go on. The host may
// ask for it again.
func (s *server) restored(c *guest.Config) error {
	if c == nil || len(c.Seed) < guest.MinSeed || len(c.Seed) > guest.MaxSeed {
		return banger.Errorf(banger.CodeInvalid,
			"restored needs a configuration with a seed of %d to %d bytes", guest.MinSeed, guest.MaxSeed)
	}
	s.suspending.Lock()
	defer s.suspending.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.configured {
		return banger.Errorf(banger.CodeConflict, "the guest was never configured")
	}
	s.clockSets++
	if err := s.system.Restore(s.config, *c); err != nil {
		return err
	}
	if err := s.secrets.Set(c.Secrets, c.User); err != nil {
		return err
	}
	s.commands.LimitCPU(c.Confine.CPU)
	s.config = *c
	s.config.Secrets = nil
	s.endHold(true) // before the programs of its clients run
	s.system.Thaw()
	s.suspended = false
	return nil
}

// Start starts a command, the main command only once per boot. It is called for SSH as well.
func (s *server) Start(e *banger.Exec, how command.Options) (*command.Process, error) {
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
	if err := s.admit(); err != nil {
		return nil, err
	}
	if e.Main && s.main != nil {
		return nil, banger.Errorf(banger.CodeConflict, "the main command was started already")
	}
	how.Confine = s.config.Confine
	run := *e
	if home := s.workspaces.Home(); e.Workspace && home != "" {
		run.Dir = home
	}
	var err error
	if run.Env, err = s.secrets.Environment(e.Env, e.Secrets); err != nil {
		return nil, err
	}
	p, err := s.commands.Start(run, how)
	if err == nil && e.Main {
		s.main, s.mainExec = p, *e
		close(s.mainUp)
	}
	return p, err
}

func (s *server) mainProcess() *command.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main
}

// startMain runs the main command without a client.
func (s *server) startMain(e *banger.Exec) error {
	if e != nil && !e.Main {
		return banger.Errorf(banger.CodeInvalid, "only the main command starts without a client")
	}
	p, err := s.Start(e, command.Options{})
	if err != nil {
		return err
	}
	go func() { // ends with the command
		s.record(p)
		p.Close()
	}()
	return nil
}

// record records the output of the main command until the command and its output have ended.
func (s *server) record(p *command.Process) {
	stream.Each(p, func(out io.Reader, t frame.Type) {
		if err := s.output.Record(t, out); err != nil {
			console.Warn(err)
		}
	})
	s.output.Close()
}

// wait answers when the main command has ended, unless the client goes away before. A shutdown lets the client read the
// answer first.
func (s *server) wait(conn net.Conn, frames *frame.Reader) {
	reported := sync.OnceFunc(s.reportsMain())
	defer reported()
	ctx, cancel := untilGone(frames, 0)
	defer cancel()
	select {
	case <-s.mainUp:
	case <-ctx.Done():
		return
	}
	main := s.mainProcess()
	select {
	case <-main.Done():
		if s.reboots() { // the VM boots again, so its main command has not ended for good
			reported()
			<-ctx.Done()
			return
		}
		if frame.WriteJSON(conn, frame.Exit, main.Exit()) == nil {
			<-ctx.Done() // the client closes the stream when it has the answer
		}
	case <-ctx.Done():
	}
}

// reboots reports whether the guest is about to boot again.
func (s *server) reboots() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping && s.how == boot.GuestReboots
}

// shutdown asks the main command to end, then leaves the rest to the system.
func (s *server) shutdown(grace time.Duration, how boot.Ending) {
	s.mu.Lock()
	again := s.stopping
	if !again {
		s.stopping, s.how = true, how
	}
	s.endHold(false)
	main, sig := s.main, syscall.Signal(s.config.StopSignal)
	s.mu.Unlock()
	s.system.Thaw() // a frozen process cannot end
	s.commands.Thaw()
	if again {
		return
	}
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	deadline := time.Now().Add(grace)
	sessions := make(chan struct{})
	go func() { // ends when all sessions have, or cannot be ended
		s.sessions.Close(grace)
		close(sessions)
	}()
	if main != nil {
		main.Signal(sig)
		select {
		case <-main.Done():
			s.awaitMainReports() // the end of this guest would cut the clients off, and the output
		case <-time.After(grace):
		}
	}
	<-sessions // their files are closed then
	s.system.Shutdown(time.Until(deadline), how)
}

// ssh serves the SSH protocol on the stream, once the request is answered.
func (s *server) ssh(conn net.Conn, request *banger.SSH) {
	s.mu.Lock()
	hostKey := s.config.SSHHostKey
	s.mu.Unlock()
	k, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer k.leave()
	c, err := s.sshd.Open(request, hostKey)
	if err != nil {
		sendError(conn, err)
		return
	}
	defer c.Close()
	k.whenCut(func() {
		conn.SetWriteDeadline(time.Now().Add(tellTime))
		c.Announce(suspended(false).Error(), tellTime)
		conn.Close()
	})
	if frame.WriteJSON(conn, frame.Response, info()) == nil {
		c.Serve(conn)
	}
}

// sendError answers with an error, whose hint stays apart from its message.
func sendError(conn net.Conn, err error) {
	e := banger.Error{Code: banger.CodeOf(err), Message: err.Error()}
	if ours, ok := err.(*banger.Error); ok && ours.Hint != "" {
		flat := *ours
		flat.Hint = ""
		e.Message, e.Hint = flat.Error(), ours.Hint
	}
	frame.WriteJSON(conn, frame.Error, &e)
}
