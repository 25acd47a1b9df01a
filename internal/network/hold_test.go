package network

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
)

const holdPatience = 30 * time.Second

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// echoes serves a TCP and a UDP port of 127.0.0.1, with the same number, that send back what they get.
func echoes(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	pc, err := net.ListenPacket("udp4", ln.Addr().String())
	must(t, err)
	t.Cleanup(func() { pc.Close() })
	go func() { // ends with ln
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	go func() { // ends with pc
		buf := make([]byte, 100)
		for n, from, err := pc.ReadFrom(buf); err == nil; n, from, err = pc.ReadFrom(buf) {
			pc.WriteTo(buf[:n], from)
		}
	}()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

// publishedEchoes returns a gate with a forward of each protocol to a guest that echoes.
func publishedEchoes(t *testing.T) (g *Gate, tcp, udp banger.Forward) {
	t.Helper()
	g = NewDirectGate(netip.MustParseAddr("127.0.0.1"), slog.New(slog.DiscardHandler))
	t.Cleanup(g.Close)
	port := echoes(t)
	return g, publishOne(t, g, "tcp", port), publishOne(t, g, "udp", port)
}

func publishOne(t *testing.T, g *Gate, protocol string, port uint16) banger.Forward {
	t.Helper()
	f := banger.Forward{Protocol: protocol, HostIP: "127.0.0.1", GuestPort: port}
	file, err := Listen(f)
	must(t, err)
	at, err := Bound(file)
	must(t, err)
	f.HostPort = at.Port()
	must(t, g.Publish(f, file, nil, nil))
	return f
}

// say sends a word by a new connection, whose answer wantEcho checks.
func say(t *testing.T, f banger.Forward) net.Conn {
	t.Helper()
	conn, err := net.Dial(f.Protocol, f.Host().String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(holdPatience))
	_, err = io.WriteString(conn, "word")
	must(t, err)
	return conn
}

func wantEcho(t *testing.T, conn net.Conn) {
	t.Helper()
	buf := make([]byte, 4)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "word" {
		t.Errorf("the answer is %q, %v", buf, err)
	}
}

// TestWhatComesToAHeldGateWaits holds a gate, also while a forward is added, and lets it go on.
func TestWhatComesToAHeldGateWaits(t *testing.T) {
	g, tcp, udp := publishedEchoes(t)
	before := say(t, tcp)
	wantEcho(t, before)
	must(t, g.Hold())
	must(t, g.Hold())
	added := publishOne(t, g, "tcp", tcp.GuestPort)
	gone := publishOne(t, g, "tcp", tcp.GuestPort)
	if !g.Unpublish(gone) {
		t.Error("a held forward cannot be removed")
	}
	if conn, err := net.Dial("tcp", gone.Host().String()); err == nil {
		conn.Close()
		t.Error("the port of a removed forward is open")
	}
	var waiting []net.Conn
	for _, f := range []banger.Forward{tcp, udp, added} {
		conn := say(t, f)
		waiting = append(waiting, conn)
		conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a held forward ends a connection with %v", err)
		}
		conn.SetReadDeadline(time.Now().Add(holdPatience))
	}
	_, err := io.WriteString(before, "word") // taken before, it goes on
	must(t, err)
	wantEcho(t, before)
	g.GoOn()
	for _, conn := range waiting {
		wantEcho(t, conn)
	}
	wantEcho(t, say(t, udp))
}

// TestSocketsGoToAnotherGate takes the sockets of a held gate, and serves by another one what has waited in them.
func TestSocketsGoToAnotherGate(t *testing.T) {
	g, tcp, udp := publishedEchoes(t)
	must(t, g.Hold())
	conns := []net.Conn{say(t, tcp), say(t, udp)}
	files := g.Take()
	if len(files) != 2 || len(g.Take()) != 0 {
		t.Fatalf("there are %d sockets", len(files))
	}
	g.Close()
	next := NewDirectGate(netip.MustParseAddr("127.0.0.1"), slog.New(slog.DiscardHandler))
	defer next.Close()
	for _, file := range files {
		at, err := Bound(file)
		must(t, err)
		f := tcp
		if at.Port() == udp.HostPort {
			f = udp
		}
		must(t, next.Publish(f, file, nil, nil))
	}
	for _, conn := range conns {
		wantEcho(t, conn)
	}
}

// TestAConnectionIsCarried that was accepted elsewhere, if its forward is in force.
func TestAConnectionIsCarried(t *testing.T) {
	g, tcp, udp := publishedEchoes(t)
	for words, f := range map[string]banger.Forward{"": tcp, "there is no forward": {Protocol: "tcp", GuestPort: 1}} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		must(t, err)
		defer ln.Close()
		near, err := net.Dial("tcp4", ln.Addr().String())
		must(t, err)
		defer near.Close()
		far, err := ln.Accept()
		must(t, err)
		file, err := far.(*net.TCPConn).File()
		must(t, err)
		far.Close()
		err = g.Carry(f, file)
		if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("it is carried: %v", err)
		}
		near.SetDeadline(time.Now().Add(holdPatience))
		if err == nil {
			_, err = io.WriteString(near, "word")
			must(t, err)
			wantEcho(t, near)
		} else if _, err := near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("it ends with %v", err)
		}
	}
	null, err := os.Open(os.DevNull)
	must(t, err)
	if err := g.Carry(tcp, null); err == nil || !strings.Contains(err.Error(), "it is not a connection") {
		t.Errorf("a file is carried: %v", err)
	}
	g.Close()
	file, err := Listen(banger.Forward{Protocol: "udp", HostIP: "127.0.0.1"})
	must(t, err)
	if err := g.Publish(udp, file, nil, nil); !errors.Is(err, errClosed) {
		t.Errorf("a closed gate takes a forward: %v", err)
	}
}
