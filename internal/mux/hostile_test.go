package mux

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"banger"
)

// lie agrees on a session with a guest that the test plays. The returned connection is the guest's end of the
// channel.
func lie(t testing.TB) (m *Mux, guest net.Conn) {
	t.Helper()
	noLeaks(t)
	host, guest := processtest.SocketPair(t)
	agreed := make(chan error, 1)
	go func() { _, err := answerHello(guest, Version); agreed <- err }()
	m = connect(t, host)
	if err := <-agreed; err != nil {
		t.Fatal(err)
	}
	return m, guest
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func repeat(n int, b []byte) []byte { return bytes.Repeat(b, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestGuestBreaksTheProtocol: a guest that breaks a rule ends its own session with an error of CodeGuest. In each
// case the host has stream 1 open and does not read from it.
func TestGuestBreaksTheProtocol(t *testing.T) {
	full := make([]byte, maxPayload)
	tests := []struct {
		name, message string
		bytes         func(session uint32) []byte
	}{
		{"a frame over the limit", "over the limit", func(s uint32) []byte {
			return appendHeader(nil, header{frameData, s, 1, maxPayload + 1})
		}},
		{"a frame of 4 GiB to nobody", "over the limit", func(s uint32) []byte {
			return appendHeader(nil, header{frameReset, s, 77, 1<<32 - 1})
		}},
		{"an unknown type", "unknown frame type", func(s uint32) []byte { return frameOf(s, 99, 1, nil) }},
		{"type zero", "unknown frame type", func(s uint32) []byte { return frameOf(s, 0, 1, nil) }},
		{"no magic", "no frame starts with", func(uint32) []byte { return make([]byte, headerSize) }},
		{"a reserved byte that is set", "no frame starts with", func(s uint32) []byte {
			b := frameOf(s, frameFin, 1, nil)
			b[3] = 1
			return b
		}},
		{"random bytes", "no frame starts with", func(uint32) []byte { return noise(9, 100_000) }},
		{"another session", "another session", func(s uint32) []byte { return frameOf(s^1, frameFin, 1, nil) }},
		{"an open", "may not open", func(s uint32) []byte { return frameOf(s, frameOpen, 5, number(1)) }},
		{"a flood of opens", "may not open", func(s uint32) []byte {
			return repeat(10_000, frameOf(s, frameOpen, 5, number(1)))
		}},
		{"data beyond the window", "more data than the window", func(s uint32) []byte {
			return join(repeat(window/maxPayload, frameOf(s, frameData, 1, full)), frameOf(s, frameData, 1, []byte{1}))
		}},
		{"a flood of data", "more data than the window", func(s uint32) []byte {
			return repeat(1000, frameOf(s, frameData, 1, full))
		}},
		{"data after the end", "after the end", func(s uint32) []byte {
			return join(frameOf(s, frameFin, 1, nil), frameOf(s, frameData, 1, []byte{1}))
		}},
		{"a little too much credit", "more credit", func(s uint32) []byte { return frameOf(s, frameWindow, 1, number(1)) }},
		{"credit that overflows", "more credit", func(s uint32) []byte {
			return frameOf(s, frameWindow, 1, number(1<<32-1))
		}},
		{"credit of a wrong length", "with 8 bytes",
			func(s uint32) []byte { return frameOf(s, frameWindow, 1, make([]byte, 8)) }},
		{"an end with a payload", "with 8 bytes", func(s uint32) []byte { return frameOf(s, frameFin, 1, make([]byte, 8)) }},
		{"a frame cut short", "EOF", func(s uint32) []byte { return frameOf(s, frameData, 1, full)[:1000] }},
		{"the answer to another hello", "another session", func(uint32) []byte { return reply(nonce{1}, Version) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, guest := lie(t)
			c := dial(t, m, 1)
			go func() { // the host may close the connection in the middle
				guest.Write(tt.bytes(m.s.id))
				guest.(*net.UnixConn).CloseWrite()
			}()
			select {
			case <-m.Done():
			case <-time.After(processtest.Patience):
				t.Fatal("the session goes on")
			}
			if err := m.Err(); !strings.Contains(err.Error(), tt.message) || banger.CodeOf(err) != banger.CodeGuest {
				t.Errorf("the session ended with %v (%s)", err, banger.CodeOf(err))
			}
			if _, err := io.Copy(io.Discard, c); tt.name != "data after the end" && err == nil {
				t.Error("the stream ended as if all were well")
			}
			if c.queued > window {
				t.Errorf("the stream held %d bytes", c.queued)
			}
			if _, err := m.Dial(t.Context(), 1); err == nil {
				t.Error("a stream was opened in a session that is over")
			}
		})
	}
}

// TestGuestTalksNonsense: messages that make no sense are ignored, use no memory, and the session continues.
func TestGuestTalksNonsense(t *testing.T) {
	for name, nonsense := range map[string]func(s uint32) []byte{
		"data for a stream that never was": func(s uint32) []byte {
			return repeat(100, frameOf(s, frameData, 99, noise(1, maxPayload)))
		},
		"credit for nobody": func(s uint32) []byte {
			return repeat(1000, frameOf(s, frameWindow, 99, number(1<<30)))
		},
		"ends of nobody": func(s uint32) []byte { return repeat(1000, frameOf(s, frameFin, 99, nil)) },
		"resets of nobody, with reasons": func(s uint32) []byte {
			return repeat(100, frameOf(s, frameReset, 99, noise(1, maxPayload)))
		},
		"empty data on an unread stream": func(s uint32) []byte { return repeat(10_000, frameOf(s, frameData, 1, nil)) },
		"the same end again and again":   func(s uint32) []byte { return repeat(1000, frameOf(s, frameFin, 1, nil)) },
		"the same reset again and again": func(s uint32) []byte { return repeat(1000, frameOf(s, frameReset, 1, nil)) },
		"data after a reset": func(s uint32) []byte {
			return join(frameOf(s, frameReset, 1, nil), frameOf(s, frameData, 1, noise(1, 9)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, guest := lie(t)
			unread, c := dial(t, m, 1), dial(t, m, 1)
			go guest.Write(join(nonsense(m.s.id), frameOf(m.s.id, frameData, c.id, []byte("sense"))))
			got := make([]byte, 5)
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "sense" {
				t.Fatalf("got %q, %v", got, err)
			}
			unread.mu.Lock()
			defer unread.mu.Unlock()
			if n := len(unread.received); n != 0 {
				t.Errorf("%d buffers are held for a stream that got no data", n)
			}
		})
	}
}

// TestHalfAFrameThenSilence: half a frame followed by silence stops only that guest's session. Reads and Close do not
// wait for the rest.
func TestHalfAFrameThenSilence(t *testing.T) {
	m, guest := lie(t)
	guest.Write(frameOf(m.s.id, frameData, 1, make([]byte, 100))[:50])
	c := dial(t, m, 1)
	c.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read gives %v", err)
	}
	mustEcho(t, start(t, echo)) // another guest
	m.Close()
}

// TestGuestNeverReads: a guest that never reads makes the host queue control frames, up to a bound.
func TestGuestNeverReads(t *testing.T) {
	m, _ := lie(t)
	for n := 0; ; n++ {
		c, err := m.Dial(t.Context(), 1)
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			break
		}
		if n > 100_000 {
			t.Fatal("control frames are queued without a bound")
		}
	}
	<-m.Done()
	m.s.out.Lock()
	defer m.s.out.Unlock()
	if len(m.s.control) > maxControl+100 {
		t.Errorf("%d bytes of control frames are queued", len(m.s.control))
	}
}

// TestFloodOfOpens: the agent also bounds how many streams a peer can open, and resets those above the bound.
func TestFloodOfOpens(t *testing.T) {
	noLeaks(t)
	host, agent := processtest.SocketPair(t)
	var handled atomic.Int32
	serve(t, agent, func(_ uint32, c net.Conn) { handled.Add(1); io.Copy(io.Discard, c) })
	n := nonce{4, 5, 6}
	go func() {
		host.Write(appendHello(nil, helloMagic, n))
		for id := range uint32(maxStreams + 10) {
			host.Write(frameOf(n.session(), frameOpen, id+1, number(7)))
		}
	}()
	host.SetReadDeadline(time.Now().Add(processtest.Patience))
	if _, err := io.ReadFull(host, make([]byte, helloSize)); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(10) {
		b := make([]byte, headerSize)
		if _, err := io.ReadFull(host, b); err != nil {
			t.Fatal(err)
		}
		if h, err := parseHeader(b); err != nil || h.typ != frameReset || h.stream != maxStreams+1+i {
			t.Errorf("the agent answers %+v, %v", h, err)
		}
	}
	if n := handled.Load(); n > maxStreams {
		t.Errorf("%d streams are served at once", n)
	}
}

// FuzzSession lets a guest send anything after a correct handshake, to a host with two streams that reads one of
// them.
func FuzzSession(f *testing.F) {
	n := nonce{1, 2, 3, 4}
	s := n.session()
	f.Add([]byte("BANGER-REPLY-GH\nand not what follows"))
	f.Add(reply(n, Version))
	f.Add(frameOf(s, frameOpen, 3, number(1)))
	f.Add(join(frameOf(s, frameData, 1, []byte("abc")), frameOf(s, frameFin, 1, nil), frameOf(s, frameReset, 1, nil)))
	f.Add(join(frameOf(s, frameData, 2, nil), frameOf(s, frameWindow, 2, number(0)), reply(n, Version)))
	f.Add(repeat(5, frameOf(s, frameData, 2, make([]byte, maxPayload))))
	f.Add(appendHeader(nil, header{frameData, s, 1, 1<<32 - 1}))
	f.Fuzz(func(t *testing.T, said []byte) {
		m := &Mux{s: newSession(io.Discard, s, nil)}
		read, _ := m.s.open(1)
		unread, _ := m.s.open(1)
		got := make(chan int64, 1)
		go func() { n, _ := io.Copy(io.Discard, read); got <- n }()
		m.readLoop(bufio.NewReaderSize(bytes.NewReader(said), readBuffer), n)
		if m.Err() == nil {
			t.Error("the session ended without an error")
		}
		if n := <-got; n > int64(len(said)) {
			t.Errorf("%d bytes were made of %d", n, len(said))
		}
		held := 0
		for _, b := range unread.received {
			held += cap(b)
		}
		if held > 3*window || unread.queued > window {
			t.Errorf("%d bytes are held in %d for an unread stream", unread.queued, held)
		}
	})
}

// FuzzServe lets a host send anything to the agent's end.
func FuzzServe(f *testing.F) {
	n := nonce{1, 2, 3, 4}
	hello, s := appendHello(nil, helloMagic, n), n.session()
	f.Add(hello)
	f.Add(join([]byte("junk"), make([]byte, 100), hello, hello, frameOf(s, frameOpen, 1, number(1))))
	f.Add(join(hello, frameOf(s, frameOpen, 1, number(1)), frameOf(s, frameData, 1, []byte("abc")),
		frameOf(s, frameFin, 1, nil)))
	f.Add(join(hello, frameOf(s, frameOpen, 1, number(1)), frameOf(s, frameOpen, 1, number(1)),
		appendHello(nil, helloMagic, nonce{9})))
	f.Fuzz(func(t *testing.T, said []byte) {
		var open atomic.Int32
		ch := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(said), io.Discard}
		err := Serve(t.Context(), ch, func(_ uint32, c net.Conn) { open.Add(1); echo(0, c); c.Close() })
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Serve ended with %v", err)
		}
		if int(open.Load()) > len(said)/headerSize {
			t.Errorf("%d streams came of %d bytes", open.Load(), len(said))
		}
	})
}
