package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"banger"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// TestPortsAreToldAsTheyChange has the test itself be the process that listens.
func TestPortsAreToldAsTheyChange(t *testing.T) {
	a := agenttest.Start(t)
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	text := func(l banger.Listener) string { return fmt.Sprintf("%+v", l) }
	of := func(protocol string, addr net.Addr, address string) string {
		_, port, _ := net.SplitHostPort(addr.String())
		n, _ := net.LookupPort(protocol, port)
		return text(banger.Listener{Protocol: protocol, Address: address, Port: uint16(n), PID: os.Getpid(),
			Process: strings.TrimSpace(string(comm))})
	}
	wantTCP, wantUDP := of("tcp", tcp.Addr(), "127.0.0.1"), of("udp", udp.LocalAddr(), "::1")

	ctx, stop := context.WithCancel(processtest.WithPatience(t))
	defer stop()
	if _, err := a.Configure(ctx, guest.Config{Hostname: "box"}); err != nil {
		t.Fatal(err)
	}
	told := make(chan map[string]bool)
	ended := make(chan error, 1)
	go func() {
		ended <- a.WatchPorts(ctx, func(list []banger.Listener) {
			all := map[string]bool{}
			for _, l := range list {
				all[text(l)] = true
			}
			select {
			case told <- all:
			case <-ctx.Done():
			}
		})
	}()
	if first := agenttest.Within(t, "the first list", told); !first[wantTCP] || !first[wantUDP] {
		t.Errorf("%v lacks %v or %v", first, wantTCP, wantUDP)
	}
	tcp.Close()
	for now := agenttest.Within(t, "a list after the change", told); now[wantTCP]; {
		now = agenttest.Within(t, "a list without the port", told)
	}
	stop()
	if err := agenttest.Within(t, "the watch ends", ended); err != context.Canceled {
		t.Errorf("it ends with %v", err)
	}
}

func TestAConnectionToTheGuestsLoopback(t *testing.T) {
	a := agenttest.Start(t)
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			agenttest.Echo(t, l)
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			conn, err := a.DialLocal(processtest.WithPatience(t), port)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			sent := strings.Repeat("there and back ", 10000)
			go func() { // ends with the text's last byte
				io.WriteString(conn, sent)
				conn.(interface{ CloseWrite() error }).CloseWrite()
			}()
			if back, err := io.ReadAll(conn); err != nil || string(back) != sent {
				t.Errorf("%d bytes of %d come back, %v", len(back), len(sent), err)
			}
			l.Close()
			if _, err := a.DialLocal(processtest.WithPatience(t), port); banger.CodeOf(err) != banger.CodeUnavailable {
				t.Errorf("where nobody listens it is %v", err)
			}
		})
	}
}

// TestWhoHasASocket is asked about sockets of the test's own.
func TestWhoHasASocket(t *testing.T) {
	a := agenttest.Start(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tcp, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, c := range []struct {
		protocol string
		port     int
		pid      int
	}{
		{"tcp", tcp.LocalAddr().(*net.TCPAddr).Port, os.Getpid()},
		{"udp", udp.LocalAddr().(*net.UDPAddr).Port, os.Getpid()},
		{"icmp", 1, 0},
		{"../tcp", tcp.LocalAddr().(*net.TCPAddr).Port, 0},
	} {
		t.Run(c.protocol, func(t *testing.T) {
			o, err := a.Owner(processtest.WithPatience(t), c.protocol, uint16(c.port))
			if err != nil || o.PID != c.pid || (o.Process != "") != (c.pid != 0) {
				t.Errorf("it is %+v, %v", o, err)
			}
		})
	}
}
