package network

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"banger"
)

// echo is a guest that sends back what it gets by TCP.
type echo struct{}

func (echo) Join(_ context.Context, _ uint16, conn net.Conn) error {
	defer conn.Close()
	_, err := io.Copy(conn, conn)
	return err
}

func (echo) Dial(context.Context, uint16) (net.Conn, error) { return nil, errors.New("not here") }
func (echo) Datagrams(uint16) (net.Conn, error)             { return nil, errors.New("not here") }

// TestWhatForwardsMoveIsCounted: the count stands still while a connection is silent, and grows with each byte, also of
// a connection that has ended.
func TestWhatForwardsMoveIsCounted(t *testing.T) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	gate := NewGate(t.Context(), echo{}, &Flows{}, slog.New(slog.DiscardHandler))
	defer gate.Close()
	if err := gate.Publish(banger.Forward{Protocol: "tcp", GuestPort: 80}, file, nil, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	last := gate.Moved()
	for _, text := range []string{"a", "some more bytes"} {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, len(text))); err != nil {
			t.Fatal(err)
		}
		want, end := last+uint64(2*len(text)), time.Now().Add(10*time.Second)
		for last = gate.Moved(); last < want; last = gate.Moved() { // until the last acknowledgement has come
			if time.Now().After(end) {
				t.Fatalf("with %q the count goes to %d, not %d", text, last, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if again := gate.Moved(); again != last {
		t.Errorf("while nothing moves, the count goes from %d to %d", last, again)
	}
	conn.Close()
	gate.Close()
	if now := gate.Moved(); now <= last {
		t.Errorf("with the end of the connection the count stays at %d", now)
	}
}
