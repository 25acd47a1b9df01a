package netstack_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"banger/internal/testing/networktest"
)

// TestAClosedPortIsTold sends datagrams to ports where nobody listens. A connected socket of the
// guest is told each time, and gets its answer when somebody listens after all.
func TestAClosedPortIsTold(t *testing.T) {
	i := networktest.NewInternet(t)
	g := newGuest(t, "default allow\nallow host udp:9")
	for name, to := range map[string]string{
		"a host":                     "8.8.8.8:9",
		"the host by the gateway":    "10.0.2.2:9",
		"the gateway":                "10.0.2.2:10",
		"the resolver":               "10.0.2.3:9",
		"a host that is not allowed": "192.168.77.2:9",
	} {
		conn, err := g.dial("udp", to)
		networktest.Check(t, err)
		conn.SetDeadline(time.Now().Add(patience))
		for range 3 {
			conn.Write([]byte("anybody?")) // reports what came meanwhile
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s at %s: a socket is told %v", name, to, err)
			}
		}
		conn.Close()
	}

	conn, err := g.dial("udp", "8.8.4.4:11")
	networktest.Check(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.Write([]byte("early"))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("it is told %v", err)
	}
	var pc net.PacketConn
	i.In(t, func() (err error) {
		pc, err = net.ListenPacket("udp4", "8.8.4.4:11")
		return err
	})
	defer pc.Close()
	networktest.Check(t, pc.SetDeadline(time.Now().Add(patience)))
	conn.Write([]byte("late"))
	buf := make([]byte, 10)
	n, from, err := pc.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "late" {
		t.Fatalf("it gets %q, %v", buf[:n], err)
	}
	pc.WriteTo([]byte("answer"), from)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "answer" {
		t.Errorf("the guest gets %q, %v", buf[:n], err)
	}
}
