package inlet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/shim"
)

// patience bounds every wait. Only a failing wait takes nearly as long.
const patience = 30 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// portsOf returns an inlet to a guest at 127.0.0.1, whose ports are opened on loopback.
func portsOf(t *testing.T, loopback string) *Inlet {
	t.Helper()
	gate := network.NewDirectGate(netip.MustParseAddr("127.0.0.1"), slog.New(slog.DiscardHandler))
	t.Cleanup(gate.Close)
	agent := guest.Client{Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("no agent here") }}
	return New(&shim.Network{Loopback: loopback, Owner: uint32(os.Geteuid())}, gate, agent)
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
		for _, l := range a.Ports(t.Context(), true) {
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
	near, far := net.Pipe()
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

// TestPortsOfAGuestThatStandsStillStay reports none while the inlet is held, and hands its ports to another inlet.
func TestPortsOfAGuestThatStandsStillStay(t *testing.T) {
	const loopback = "127.98.7.5"
	a := portsOf(t, loopback)
	port, local := serveTCP(t, "by the network"), serveTCP(t, "")
	reported := []banger.Listener{{Protocol: "tcp", Address: "0.0.0.0", Port: port},
		{Protocol: "tcp", Address: "127.0.0.1", Port: local}}
	a.update(reported)
	check(t, a.Hold())
	a.update(nil)
	list, files := a.Leave()
	if len(list) != 2 || len(files) != 2 || len(list[0].Reachable) != 1 {
		t.Fatalf("it leaves %+v and %d sockets", list, len(files))
	}
	gate := network.NewDirectGate(netip.MustParseAddr("127.0.0.1"), slog.New(slog.DiscardHandler))
	defer gate.Close()
	next := New(&shim.Network{Loopback: loopback, Owner: uint32(os.Geteuid()), Listeners: list}, gate, a.agent)
	check(t, next.Hold())
	for _, file := range files {
		at, err := network.Bound(file)
		check(t, err)
		fd, err := syscall.Dup(int(file.Fd()))
		check(t, err)
		file.Close()
		check(t, next.TakeOwn(fd, []banger.Forward{{Protocol: "tcp", HostIP: loopback, HostPort: at.Port(),
			GuestPort: at.Port()}}))
	}
	if !next.isLocal(local) || next.isLocal(port) {
		t.Error("it does not know where the guest listens")
	}
	said := make(chan string)
	go func() { said <- answers(fmt.Sprintf("%s:%d", loopback, port)) }()
	next.GoOn()
	if text := <-said; text != "by the network" {
		t.Errorf("the port says %q", text)
	}
	next.update(nil)
	if text := answers(fmt.Sprintf("%s:%d", loopback, port)); text != "" {
		t.Errorf("a port that the guest has closed says %q", text)
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
	for _, l := range a.Ports(t.Context(), true) {
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
	if list := a.Ports(t.Context(), false); len(list) != 1 || list[0].URL != "" {
		t.Errorf("without a probe it is %+v", list)
	}
	if list := a.Ports(t.Context(), true); len(list) != 1 || list[0].URL == "" || asked.Load() != 1 {
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
