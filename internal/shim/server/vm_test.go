package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/shim"
	"banger/internal/shim/decision"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
)

// patience bounds every wait. Only a failing wait takes nearly as long.
const patience = 60 * time.Second

// vmShim is a shim in this process, with a VM of the driver in memory.
type vmShim struct {
	shim.Client
	t      *testing.T
	server *server
	ended  chan error // gets the result of serve
}

// startShim starts a VM on the network, or without a NIC if network is nil. It ends with the test.
func startShim(t *testing.T, n *shim.Network) *vmShim {
	t.Helper()
	agent := agentBinary(t)
	dir, err := os.MkdirTemp("", "shim") // shorter than t.TempDir: a socket's path has 108 bytes
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Chdir(dir) // a shim's files are in its working directory
	spec := plan{shim.Spec{Driver: "memory", Network: n, VM: vmm.Config{
		ID:     "0123456789ab",
		Dir:    dir,
		Kernel: filepath.Join(dir, "kernel"),
		Initrd: filepath.Join(dir, "initrd"),
	}}}
	for _, path := range []string{spec.VM.Kernel, spec.VM.Initrd} {
		check(t, os.WriteFile(path, nil, 0o600))
	}
	con, err := openConsole(shim.ConsoleFile)
	check(t, err)
	rec, err := openRecorder(shim.OutputFile)
	check(t, err)
	self, err := vmm.Self()
	check(t, err)
	s := &server{
		daemon:    uint32(os.Geteuid()),
		self:      self,
		console:   con,
		recorder:  rec,
		places:    newPlaces(),
		decisions: decision.NewLog(),
		log:       slog.New(slog.DiscardHandler),
		muxNext:   make(chan struct{}),
		settled:   make(chan struct{}),
		resumed:   make(chan struct{}, 1),
	}
	s.attribution = decision.NewAttribution(s.agent(), s.decisions)
	ln, err := listenControl(filepath.Join(dir, shim.SocketFile))
	check(t, err)
	ctx, stop := context.WithCancel(context.Background())
	check(t, s.startVM(ctx, vmmtest.Memory{Agent: agent}, spec))
	v := &vmShim{shim.Client{Dir: dir, Run: dir}, t, s, make(chan error, 1)}
	over := make(chan struct{})
	go func() {
		v.ended <- s.serve(ctx, ln)
		close(over)
	}()
	t.Cleanup(func() {
		stop()
		<-over
	})
	return v
}

func (v *vmShim) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	v.t.Cleanup(cancel)
	return ctx
}

// agent returns a client of the guest's agent by the shim.
func (v *vmShim) agent() guest.Client {
	return guest.Client{Dial: func(ctx context.Context) (net.Conn, error) { return v.Dial(ctx, guest.AgentPort) }}
}

// userNetwork returns a user network that allows everything.
func userNetwork(forwards ...banger.Forward) *shim.Network {
	return &shim.Network{MAC: "02:00:00:00:00:01", Policy: banger.Policy{Default: banger.Allow}, Forwards: forwards,
		Owner: uint32(os.Geteuid())}
}

// TestTheLifeOfAShim makes each call once to a VM that runs, until the VM ends.
func TestTheLifeOfAShim(t *testing.T) {
	v := startShim(t, userNetwork())
	if _, err := v.agent().Configure(v.ctx(), guest.Config{}); err != nil {
		t.Fatal(err)
	}
	st, err := v.Status(v.ctx())
	if err != nil || !st.Agent || st.Ended || st.Shim.PID != os.Getpid() || !st.VMM.Alive() {
		t.Errorf("the status is %+v, %v", st, err)
	}
	check(t, v.Pause(v.ctx()))
	check(t, v.Resume(v.ctx()))
	if st, err := v.Stats(v.ctx()); err != nil || st.Stats.NetOut != 0 {
		t.Errorf("the stats are %+v, %v", st.Stats, err)
	}
	check(t, v.SetPolicy(v.ctx(), banger.Policy{Default: banger.Deny}))
	once := shim.Once{Rule: banger.Rule{Action: banger.Allow, To: banger.ToHost}, For: time.Minute}
	check(t, v.AllowOnce(v.ctx(), once))
	if list, err := v.Ports(v.ctx(), true); err != nil {
		t.Errorf("the ports are %+v, %v", list, err)
	}
	check(t, v.AddRefusal(v.ctx(), banger.Decision{Protocol: "tcp", Address: "192.0.2.1", Rule: "default deny"}))
	var refusals bytes.Buffer
	check(t, v.Decisions(v.ctx(), true, -1, false, &refusals))
	if !strings.Contains(refusals.String(), `"address":"192.0.2.1"`) {
		t.Errorf("the refusals are %s", &refusals)
	}
	watched, console := make(chan error, 1), make(chan string, 1)
	go func() {
		st, err := v.Watch(v.ctx())
		if err == nil && !st.Ended {
			err = io.ErrUnexpectedEOF
		}
		watched <- err
	}()
	go func() {
		var text bytes.Buffer
		v.FollowConsole(v.ctx(), -1, &text)
		console <- text.String()
	}()
	check(t, v.Kill(v.ctx()))
	check(t, <-watched)
	<-console
	check(t, <-v.ended)
	v.ended <- nil
	if exit, err := v.LastExit(); err != nil || exit.Signal != 9 {
		t.Errorf("the exit record is %+v, %v", exit, err)
	}
	saved, err := os.ReadFile(filepath.Join(v.Dir, shim.DecisionsFile))
	if err != nil || string(saved) != refusals.String() {
		t.Errorf("the saved refusals are %s, %v", saved, err)
	}
	check(t, v.Kill(v.ctx())) // there is no shim now
}

// TestWrongCalls sends calls that no daemon of ours sends.
func TestWrongCalls(t *testing.T) {
	v := startShim(t, userNetwork())
	forward := `{"protocol":"tcp","host_ip":"127.0.0.1","host_port":1234,"guest_port":80}`
	for line, want := range map[string]string{
		"NONSENSE":                       `unknown call "NONSENSE"`,
		"":                               `unknown call ""`,
		shim.CallPolicy + " {":           "unexpected end of JSON input",
		shim.CallPolicy + ` {}`:          "the policy",
		shim.CallOnce + ` {}`:            "is not allow or deny",
		shim.CallForward + " {":          "unexpected end of JSON input",
		shim.CallForward + " {}":         "",
		shim.CallForward + " " + forward: "the forward came without its socket",
		shim.CallRelease + " " + forward: "there is no forward",
		shim.CallDeny + " {":             "unexpected end of JSON input",
	} {
		conn := call(t, v.Client, line)
		var st shim.Status
		if err := json.NewDecoder(conn).Decode(&st); err != nil || st.Error == "" || !strings.Contains(st.Error, want) {
			t.Errorf("%q is answered %q, %v, not %q", line, st.Error, err, want)
		}
	}
	for _, line := range []string{shim.CallConnect + " x", shim.CallConsole + " x", shim.CallOutput + " x",
		shim.CallDecisions + " 1"} {
		conn := call(t, v.Client, line)
		if text, err := io.ReadAll(conn); err != nil || len(text) > 0 {
			t.Errorf("%q is answered %q, %v", line, text, err)
		}
	}
}

// TestAVMWithoutANetwork checks the calls about the network.
func TestAVMWithoutANetwork(t *testing.T) {
	v := startShim(t, nil)
	socket, err := network.Listen(loopbackForward(80))
	check(t, err)
	defer socket.Close()
	_, perr := v.Ports(v.ctx(), true)
	for _, err := range []error{perr, v.SetPolicy(v.ctx(), banger.Policy{Default: banger.Deny}),
		v.AllowOnce(v.ctx(), shim.Once{Rule: banger.Rule{Action: banger.Allow, To: banger.ToHost}, For: time.Minute}),
		v.AddForward(v.ctx(), loopbackForward(80), socket)} {
		if err == nil || err.Error() != "the VM has no network" {
			t.Errorf("it is %v", err)
		}
	}
	if _, err := v.Stats(v.ctx()); err != nil {
		t.Error(err)
	}
}

func loopbackForward(guestPort uint16) banger.Forward {
	return banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: guestPort}
}

// TestForwardsComeAndGo adds a forward while the VM runs and removes it.
func TestForwardsComeAndGo(t *testing.T) {
	v := startShim(t, userNetwork())
	socket, err := network.Listen(loopbackForward(80))
	check(t, err)
	f := loopbackForward(80)
	f.HostPort = uint16(listenPort(t, socket))
	check(t, v.AddForward(v.ctx(), f, socket))
	socket.Close() // the shim has its own copy
	conn, err := net.Dial("tcp4", f.Host().String())
	check(t, err)
	conn.Close()
	check(t, v.RemoveForward(v.ctx(), f))
	if conn, err := net.Dial("tcp4", f.Host().String()); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
	if err := v.RemoveForward(v.ctx(), f); err == nil {
		t.Error("it is removed twice")
	}
}

// listenPort returns the port of a listening socket.
func listenPort(t *testing.T, f *os.File) int {
	t.Helper()
	ln, err := net.FileListener(f)
	check(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// TestStreamsAreGivenAway runs a command on a stream of each kind: one that the daemon keeps, and one whose other end
// the shim serves to the daemon's client.
func TestStreamsAreGivenAway(t *testing.T) {
	v := startShim(t, nil)
	if _, err := v.agent().Configure(v.ctx(), guest.Config{}); err != nil {
		t.Fatal(err)
	}
	open := func() (net.Conn, *shim.Stream) {
		var offered *shim.Stream
		agent := guest.Client{Dial: func(ctx context.Context) (net.Conn, error) {
			var err error
			offered, err = v.Offer(ctx, guest.AgentPort)
			return offered, err
		}}
		conn, err := agent.Exec(v.ctx(), banger.Exec{Args: []string{"/bin/echo", "words"}})
		check(t, err)
		return conn, offered
	}
	moved := func() uint64 {
		_, err := v.agent().Ping(v.ctx()) // the daemon asks this, not a client, so it does not count
		check(t, err)
		st, err := v.Stats(v.ctx())
		check(t, err)
		return st.Stats.Moved
	}
	before := moved()
	kept, _ := open()
	if got := said(t, kept); got != "words\n" {
		t.Errorf("a stream that is kept says %q", got)
	}
	between := moved()
	_, stream := open()
	near, far := unixPair(t)
	if given, err := stream.Give(far); !given || err != nil {
		t.Fatalf("it is given away: %t, %v", given, err)
	}
	far.Close()
	if got := said(t, near); got != "words\n" {
		t.Errorf("a stream that is given away says %q", got)
	}
	if after := moved(); before != 0 || between <= 6 || after <= between+6 || moved() != after {
		t.Errorf("what has moved is %d, %d and %d", before, between, after)
	}
}

// said returns the output of a command on conn.
func said(t *testing.T, conn net.Conn) (out string) {
	t.Helper()
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	frames := frame.NewReader(conn)
	for {
		typ, p, err := frames.Next()
		check(t, err)
		switch typ {
		case frame.Stdout:
			out += string(p)
		case frame.Exit, frame.Error:
			return out
		}
	}
}

// unixPair returns the ends of a connection.
func unixPair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	pair, err := newSocketPair()
	check(t, err)
	defer pair.close()
	a, err := net.FileConn(pair.ours)
	check(t, err)
	b, err := net.FileConn(pair.theirs)
	check(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

// TestAVMThatDoesNotStart checks that nothing of its network stays.
func TestAVMThatDoesNotStart(t *testing.T) {
	agent, dir := agentBinary(t), t.TempDir()
	t.Chdir(dir)
	for name, c := range map[string]struct {
		network *shim.Network
		fault   vmmtest.Fault
		words   string
	}{
		"the driver refuses":     {userNetwork(), vmmtest.FailToStart, "the test wants no VM here"},
		"the network is refused": {&shim.Network{MAC: "nonsense"}, vmmtest.NoFault, "nonsense"},
	} {
		spec := plan{shim.Spec{Network: c.network, VM: vmm.Config{Dir: dir, Kernel: agent, Initrd: agent}}}
		con, err := openConsole(shim.ConsoleFile)
		check(t, err)
		s := &server{console: con, decisions: decision.NewLog(), log: slog.New(slog.DiscardHandler)}
		s.attribution = decision.NewAttribution(s.agent(), s.decisions)
		driver := vmmtest.Memory{Agent: agent, Fault: func(vmm.Config) vmmtest.Fault { return c.fault }}
		if err := s.startVM(t.Context(), driver, spec); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		con.close()
	}
}
