package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// TestReadCall checks what is read of a call, and that nothing behind its line is read.
func TestReadCall(t *testing.T) {
	for name, c := range map[string]struct {
		sent  string
		files int // how many descriptors come with the first byte
		line  string
		file  bool
		wrong bool
	}{
		"a call":                {"STATUS\nrest", 0, "STATUS", false, false},
		"an empty line":         {"\nrest", 0, "", false, false},
		"with a descriptor":     {"FORWARD {}\nrest", 1, "FORWARD {}", true, false},
		"with two descriptors":  {"FORWARD {}\nrest", 2, "FORWARD {}", false, false},
		"no end":                {"STATUS", 0, "", false, true},
		"no end, and a file":    {"FORWARD", 1, "", true, true},
		"nothing":               {"", 0, "", false, true},
		"a line without an end": {strings.Repeat("x", shim.MaxCall+2), 0, "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := unixPair(t)
			go func() { // ends when all is read, or when the test closes near
				var fds []int
				for range c.files {
					fds = append(fds, int(os.Stdin.Fd()))
				}
				if c.sent != "" {
					near.WriteMsgUnix([]byte(c.sent[:1]), syscall.UnixRights(fds...), nil)
					io.WriteString(near, c.sent[1:])
				}
				near.CloseWrite()
			}()
			line, file, err := readCall(far)
			if (err != nil) != c.wrong || !c.wrong && line != c.line || !c.wrong && (file != nil) != c.file {
				t.Errorf("it is %.40q, %v, %v", line, file, err)
			}
			if c.wrong {
				return
			}
			file.Close()
			if rest, err := io.ReadAll(far); string(rest) != "rest" || err != nil {
				t.Errorf("behind the call there is %q, %v", rest, err)
			}
		})
	}
}

// TestHowANetDeviceIsConnected checks each kind of attachment, with what the VMM then gets.
func TestHowANetDeviceIsConnected(t *testing.T) {
	for want, n := range map[string]*shim.Network{
		"none":                       nil,
		"socket":                     {MAC: "m"},
		"device tap0 in a namespace": {MAC: "m", Tap: "tap0"},
		"device tap0":                {MAC: "m", Tap: "tap0", Address: "10.0.0.2"},
	} {
		p, err := openNIC(plan{shim.Spec{Network: n}}, nil)
		check(t, err)
		if got := describeNIC(p.config(vmm.Config{})); got != want {
			t.Errorf("it is %s, not %s", got, want)
		}
		p.close()
	}
	file, err := os.Open(os.DevNull)
	check(t, err)
	handed := &nic{network: &shim.Network{MAC: "m", Address: "10.0.0.2"}, tap: file}
	defer handed.close()
	if got := describeNIC(handed.config(vmm.Config{})); got != "tap" {
		t.Errorf("a tap that was handed over is %s", got)
	}
}

func describeNIC(c vmm.Config) string {
	if len(c.NICs) == 0 {
		return "none"
	}
	nic := c.NICs[0]
	switch {
	case nic.Socket != nil && nic.MTU == network.UserMTU:
		return "socket"
	case nic.Tap != nil:
		return "tap"
	case c.Namespaces && len(c.WrapFiles) == 1 && nic.MTU == network.UserMTU:
		return "device " + nic.Device + " in a namespace"
	}
	return "device " + nic.Device
}

// TestATapComesFromTheWrapper hands a descriptor over, as the wrapper of a VMM does, and less than that.
func TestATapComesFromTheWrapper(t *testing.T) {
	for name, c := range map[string]struct {
		hand  func(fd int) error
		words string // of the error; "" for none
	}{
		"a tap":        {func(fd int) error { return syscall.Sendmsg(fd, []byte{1}, syscall.UnixRights(0), nil, 0) }, ""},
		"no tap":       {func(fd int) error { return syscall.Sendmsg(fd, []byte{1}, nil, nil, 0) }, "handed no tap over"},
		"it has ended": {func(int) error { return nil }, "receiving the tap"},
	} {
		tap, err := newInsideTap()
		check(t, err)
		theirs, err := syscall.Dup(int(tap.theirs.Fd()))
		check(t, err)
		check(t, c.hand(theirs))
		syscall.Close(theirs)
		f, err := tap.receive()
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
		tap.close()
	}
}

// newDenial returns the n-th denial of a test, each of them a second after the one before.
func newDenial(n int) banger.Denial {
	return banger.Denial{Time: time.Unix(int64(n), 0).UTC(), Protocol: "tcp", Address: "192.0.2.1", Port: uint16(n),
		Rule: "default deny"}
}

// TestTheLastDenialsAreKept adds more denials than are kept.
func TestTheLastDenialsAreKept(t *testing.T) {
	d := newDenials()
	const all = maxDenials + maxDenials/4
	for n := range all {
		d.add(newDenial(n))
	}
	for tail, want := range map[int]int{-1: all - maxDenials/2, 3: 3, 0: 0, 10 * maxDenials: all - maxDenials/2} {
		list := written(t, d, tail)
		if len(list) != want || want > 0 && list[len(list)-1].Port != all-1 {
			t.Errorf("of the last %d there are %d", tail, len(list))
		}
	}
	path := filepath.Join(t.TempDir(), "denials")
	check(t, d.save(path))
	if text, err := os.ReadFile(path); err != nil || bytes.Count(text, []byte("\n")) != all-maxDenials/2 {
		t.Errorf("saved are %d bytes, %v", len(text), err)
	}
}

func written(t *testing.T, d *denials, tail int) (list []banger.Denial) {
	t.Helper()
	var out bytes.Buffer
	check(t, d.write(t.Context(), nil, tail, false, &out))
	for dec := json.NewDecoder(&out); dec.More(); {
		var n banger.Denial
		check(t, dec.Decode(&n))
		list = append(list, n)
	}
	return list
}

// TestDenialsThatRepeatAreCounted within a second, and only if they are the same.
func TestDenialsThatRepeatAreCounted(t *testing.T) {
	d := newDenials()
	first, other := newDenial(1), newDenial(1)
	other.Port = 2
	late := first
	late.Time = late.Time.Add(denialWindow)
	for _, n := range []banger.Denial{first, first, other, first, late} {
		d.add(n)
	}
	list := written(t, d, -1)
	if len(list) != 3 || list[0].Count != 3 || list[1].Count != 0 || list[2].Count != 0 {
		t.Errorf("they are %+v", list)
	}
}

// TestDenialsAreFollowed until the VMM ends, the client has gone, or it takes no more.
func TestDenialsAreFollowed(t *testing.T) {
	broken := errors.New("no more")
	for name, end := range map[string]func(ended chan struct{}, interrupt func(), r *io.PipeReader){
		"the VMM ends":        func(ended chan struct{}, _ func(), _ *io.PipeReader) { close(ended) },
		"the client has gone": func(_ chan struct{}, interrupt func(), _ *io.PipeReader) { interrupt() },
		"it takes no more":    func(_ chan struct{}, _ func(), r *io.PipeReader) { r.CloseWithError(broken) },
	} {
		t.Run(name, func(t *testing.T) {
			d, ended := newDenials(), make(chan struct{})
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			r, w := io.Pipe()
			over := make(chan error, 1)
			go func() { over <- d.write(ctx, ended, -1, true, w) }()
			lines := json.NewDecoder(r)
			for n := range 3 {
				d.add(newDenial(n))
				var got banger.Denial
				if err := lines.Decode(&got); err != nil || got.Port != uint16(n) {
					t.Errorf("it is %+v, %v", got, err)
				}
			}
			end(ended, interrupt, r)
			d.add(newDenial(9)) // only a client that takes no more notices by this
			go io.Copy(io.Discard, r)
			if err := <-over; name == "it takes no more" != errors.Is(err, broken) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// portsOf returns access to a guest at 127.0.0.1, whose ports are opened on loopback.
func portsOf(t *testing.T, loopback string) *access {
	t.Helper()
	gate := network.NewDirectGate(netip.MustParseAddr("127.0.0.1"), slog.New(slog.DiscardHandler))
	t.Cleanup(gate.Close)
	agent := guest.Client{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("no agent here") }}
	return newAccess(&shim.Network{Loopback: loopback, Owner: uint32(os.Geteuid())}, gate, agent)
}

// serveTCP answers each connection to a free port of 127.0.0.1 with text, and returns the port.
func serveTCP(t *testing.T, text string) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with ln
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			go func() {
				defer conn.Close()
				if strings.HasPrefix(text, "HTTP/") || text == "\x15" {
					conn.Read(make([]byte, 512)) // a server reads the request before it answers
				}
				io.WriteString(conn, text)
			}()
		}
	}()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

// answers returns what a port says, or "" if it is closed.
func answers(at string) string {
	conn, err := net.DialTimeout("tcp4", at, patience)
	if err != nil {
		return ""
	}
	defer conn.Close()
	text, _ := io.ReadAll(conn)
	return string(text)
}

// TestPortsOpenAndCloseWithTheGuests changes the guest's listeners, and checks the ports on the VM's loopback address.
func TestPortsOpenAndCloseWithTheGuests(t *testing.T) {
	const loopback = "127.98.7.1"
	a := portsOf(t, loopback)
	one, two := serveTCP(t, "one"), serveTCP(t, "two")
	listener := func(port uint16, protocol, address string) banger.Listener {
		return banger.Listener{Protocol: protocol, Address: address, Port: port}
	}
	at := func(port uint16) string { return fmt.Sprintf("%s:%d", loopback, port) }
	taken, err := net.Listen("tcp4", loopback+":0")
	check(t, err)
	defer taken.Close()
	busy := uint16(taken.Addr().(*net.TCPAddr).Port)
	for _, c := range []struct {
		list []banger.Listener
		open []string
	}{
		{nil, nil},
		{[]banger.Listener{listener(one, "tcp", "0.0.0.0")}, []string{"one"}},
		{[]banger.Listener{listener(one, "tcp", "::"), listener(two, "tcp", "10.0.2.15")}, []string{"one", "two"}},
		{[]banger.Listener{listener(two, "tcp", "0.0.0.0"), listener(two, "udp", "127.0.0.1"),
			listener(0, "tcp", "0.0.0.0"), listener(two, "tcp", "nonsense"), listener(busy, "tcp", "0.0.0.0")},
			[]string{"two"}},
		{nil, nil},
	} {
		a.update(c.list)
		var open []string
		for _, port := range []uint16{one, two} {
			if text := answers(at(port)); text != "" {
				open = append(open, text)
			}
		}
		if fmt.Sprint(open) != fmt.Sprint(c.open) || len(a.open) != len(c.open) {
			t.Errorf("with %+v there are open %q, %v", c.list, open, a.open)
		}
		for _, l := range a.ports(t.Context(), true) {
			if (l.Port == busy) != (l.Problem != "") || len(l.Reachable) > 0 && l.Reachable[0] != at(l.Port) {
				t.Errorf("it is %+v", l)
			}
		}
	}
}

// TestAPortOfTheGuestsLoopback checks that only the agent reaches it, and that a connection ends if the agent does not.
func TestAPortOfTheGuestsLoopback(t *testing.T) {
	const loopback = "127.98.7.2"
	a := portsOf(t, loopback)
	port := serveTCP(t, "by the network")
	a.update([]banger.Listener{{Protocol: "tcp", Address: "127.0.0.1", Port: port}})
	if !a.isLocal(port) || a.isLocal(port+1) {
		t.Error("it is not a port of the loopback")
	}
	if text := answers(fmt.Sprintf("%s:%d", loopback, port)); text != "" {
		t.Errorf("without an agent it says %q", text)
	}
	for range maxLocal {
		a.local <- struct{}{}
	}
	near, far := unixPair(t)
	if err := a.connectLocal(port)(t.Context(), far); err == nil || !strings.Contains(err.Error(), "are open already") {
		t.Errorf("it is %v", err)
	}
	if _, err := near.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection ends with %v", err)
	}
	a.update([]banger.Listener{{Protocol: "tcp", Address: "127.0.0.1", Port: port},
		{Protocol: "tcp", Address: "0.0.0.0", Port: port}})
	if a.isLocal(port) {
		t.Error("it is a port of the loopback alone")
	}
}

// TestWhichPortsSpeakHTTP guesses from the answer to a request.
func TestWhichPortsSpeakHTTP(t *testing.T) {
	const loopback = "127.98.7.3"
	a := portsOf(t, loopback)
	want := map[uint16]string{
		serveTCP(t, "HTTP/1.1 200 OK\r\n\r\n"):                          "http",
		serveTCP(t, "HTTP/1.0 400 Bad Request\r\n\r\nuse HTTPS please"): "https",
		serveTCP(t, "SSH-2.0-x\r\n"):                                    "",
		serveTCP(t, "\x15"):                                             "https", // an alert of TLS
	}
	var list []banger.Listener
	for port := range want {
		list = append(list, banger.Listener{Protocol: "tcp", Address: "0.0.0.0", Port: port})
	}
	a.update(list)
	for _, l := range a.ports(t.Context(), true) {
		scheme, _, _ := strings.Cut(l.URL, "://")
		if scheme != want[l.Port] {
			t.Errorf("it is %+v, not %q", l, want[l.Port])
		}
	}
}

// TestServicesAreAskedOnlyInAProbe counts the connections of a service.
func TestServicesAreAskedOnlyInAProbe(t *testing.T) {
	const loopback = "127.98.7.4"
	a := portsOf(t, loopback)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer ln.Close()
	var asked atomic.Int32
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			conn.Close()
		}
	}()
	port := netip.MustParseAddrPort(ln.Addr().String()).Port()
	a.update([]banger.Listener{{Protocol: "tcp", Address: "0.0.0.0", Port: port}})
	if list := a.ports(t.Context(), false); len(list) != 1 || list[0].URL != "" {
		t.Errorf("without a probe it is %+v", list)
	}
	if list := a.ports(t.Context(), true); len(list) != 1 || list[0].URL == "" || asked.Load() != 1 {
		t.Errorf("after a probe it is %+v, and was asked %d times", list, asked.Load())
	}
}

// TestAPortThatOnlyRootMayOpen opens another one for an ordinary user.
func TestAPortThatOnlyRootMayOpen(t *testing.T) {
	const env = "BANGER_TEST_LOW_PORT"
	if os.Geteuid() == 0 && os.Getenv(env) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestAPortThatOnlyRootMayOpen$")
		cmd.Dir, cmd.Env = "/", append(os.Environ(), env+"=1", "GOCOVERDIR=")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
		if out, err := cmd.CombinedOutput(); err != nil && !bytes.Contains(out, []byte("PASS")) {
			t.Errorf("as another user: %v\n%s", err, out)
		}
		return
	}
	const loopback = "127.98.7.4"
	a := portsOf(t, loopback)
	a.update([]banger.Listener{{Protocol: "tcp", Address: "0.0.0.0", Port: 81}})
	list := a.reachable()
	if len(list) != 1 || len(list[0].Reachable) != 1 || list[0].Reachable[0] != loopback+":8081" &&
		list[0].Reachable[0] != loopback+":81" { // some hosts open all ports to all users
		t.Errorf("it is %+v", list)
	}
}
