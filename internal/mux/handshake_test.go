package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"banger"
)

// TestPeerVanishes: when the channel breaks, every stream of both ends ends with an error.
func TestPeerVanishes(t *testing.T) {
	noLeaks(t)
	host, agent := processtest.SocketPair(t)
	streams := make(chan error, 3)
	served := serve(t, agent, func(_ uint32, c net.Conn) {
		io.WriteString(c, "x")
		_, err := io.Copy(io.Discard, c)
		streams <- err
	})
	m := connect(t, host)
	var open []*stream
	for range cap(streams) {
		c := dial(t, m, 1)
		io.ReadFull(c, make([]byte, 1))
		open = append(open, c)
	}
	agent.(interface{ CloseWrite() error }).CloseWrite() // a dying VMM does this
	<-m.Done()
	if m.Err() == nil {
		t.Error("the session is over without a reason")
	}
	for _, c := range open {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("reading from a guest that is gone gives %v", err)
		}
		if _, err := c.Write(make([]byte, 1)); err == nil {
			t.Error("writing to a guest that is gone succeeds")
		}
	}
	if _, err := m.Dial(context.Background(), 1); err == nil {
		t.Error("a stream was opened to a guest that is gone")
	}
	m.Close()
	for range open {
		if err := <-streams; err == nil {
			t.Error("the guest took the host's end for the stream's")
		}
	}
	if err := <-served; !errors.Is(err, io.EOF) {
		t.Errorf("Serve ended with %v", err)
	}
}

func TestDeadlines(t *testing.T) {
	m := start(t, func(_ uint32, c net.Conn) { io.Copy(c, c) })
	c := dial(t, m, 1)
	one := make([]byte, 1)
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline, Read gives %v", err)
	}
	c.SetDeadline(time.Time{})
	c.Write([]byte("y"))
	if _, err := c.Read(one); err != nil || one[0] != 'y' {
		t.Errorf("with the deadline taken back, Read gives %q, %v", one, err)
	}
	waiting := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); waiting <- err }()
	c.SetReadDeadline(time.Unix(1, 0)) // at any point of the read
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline in the past lets a waiting Read go with %v", err)
	}
}

// TestWriteToStuckChannel: a guest that reads nothing from the channel must not block a writer beyond its deadline or
// its Close, and withdrawn frames are never sent.
func TestWriteToStuckChannel(t *testing.T) {
	noLeaks(t)
	host, agent := net.Pipe()
	defer agent.Close()
	go answerHello(agent, Version) // and reads nothing after that
	m := connect(t, host)
	c := dial(t, m, 1)
	await := func(what string, want error, end func()) {
		failed := make(chan error, 1)
		go func() {
			for {
				if _, err := c.Write([]byte("more")); err != nil {
					failed <- err
					return
				}
			}
		}()
		end()
		select {
		case err := <-failed:
			if !errors.Is(err, want) {
				t.Errorf("%s: Write gives %v", what, err)
			}
		case <-time.After(processtest.Patience):
			t.Fatalf("%s: Write still waits", what)
		}
	}
	await("deadline", os.ErrDeadlineExceeded, func() { c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) })
	m.s.out.Lock()
	if len(m.s.data) != 0 {
		t.Errorf("%d frames of writers that gave up are still queued", len(m.s.data))
	}
	m.s.out.Unlock()
	c.SetWriteDeadline(time.Time{})
	await("close", net.ErrClosed, func() { c.Close() })
}

// answerHello plays the guest's part of the handshake.
func answerHello(ch io.ReadWriter, version byte) (nonce, error) {
	n, err := readHello(ch)
	if err == nil {
		_, err = ch.Write(reply(n, version))
	}
	return n, err
}

func readHello(ch io.Reader) (nonce, error) {
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(ch, b); err != nil {
		return nonce{}, err
	}
	n, _, err := readHelloBody(ch)
	return n, err
}

func reply(n nonce, version byte) []byte {
	b := appendHello(nil, replyMagic, n)
	b[headerSize+nonceSize+3] = version
	return b
}

// speak answers a hello as an end that speaks a range of versions.
func speak(ch io.ReadWriter, newest, oldest byte) {
	n, err := readHello(ch)
	if err != nil {
		return
	}
	b := reply(n, newest)
	b[headerSize+nonceSize+7] = oldest
	ch.Write(b)
}

// TestHandshake lists what a host may find in the channel before the guest's answer, or instead of it.
func TestHandshake(t *testing.T) {
	noLeaks(t)
	old := nonce{1, 2, 3}
	tests := []struct {
		name  string
		guest func(net.Conn) // when it ends, the guest is silent
		code  banger.Code
		err   error
	}{
		{"at once", func(c net.Conn) { answerHello(c, Version) }, "", nil},
		{"after garbage", func(c net.Conn) {
			c.Write(append([]byte("[    0.000000] Linux version\r\n"), noise(1, 100_000)...))
			answerHello(c, Version)
		}, "", nil},
		{"after the beginning of an answer", func(c net.Conn) {
			c.Write([]byte(replyMagic[:9]))
			answerHello(c, Version)
		}, "", nil},
		{"the first hello is lost", func(c net.Conn) {
			readHello(c)
			answerHello(c, Version)
		}, "", nil},
		{"half of the first hello is lost", func(c net.Conn) {
			io.ReadFull(c, make([]byte, helloSize/2+1))
			io.ReadFull(c, make([]byte, helloSize-helloSize/2-1))
			answerHello(c, Version)
		}, "", nil},
		{"after the answer to an old session", func(c net.Conn) {
			c.Write(reply(old, Version))
			answerHello(c, Version)
		}, "", nil},
		{"after frames of an old session", func(c net.Conn) {
			c.Write(frameOf(old.session(), frameData, 7, noise(2, maxPayload)))
			c.Write(frameOf(old.session(), frameData, 7, noise(3, maxPayload))[:5000])
			answerHello(c, Version)
		}, "", nil},
		{"answered twice", func(c net.Conn) {
			n, _ := answerHello(c, Version)
			c.Write(reply(n, Version))
		}, "", nil},
		{"an end from before the range", func(c net.Conn) { speak(c, Version, 0) }, "", nil},
		{"a newer end that speaks our version too", func(c net.Conn) { speak(c, Version+3, Version) }, "", nil},
		{"an older end that speaks our oldest", func(c net.Conn) { speak(c, Oldest, 1) }, "", nil},
		{"a newer end only", func(c net.Conn) { speak(c, Version+1, Version+1) }, banger.CodeVersion, nil},
		{"an older end only", func(c net.Conn) { speak(c, Oldest-1, 1) }, banger.CodeVersion, nil},
		{"a newer end from before the range", func(c net.Conn) { speak(c, Version+1, 0) }, banger.CodeVersion, nil},
		{"a range that is upside down", func(c net.Conn) { speak(c, Oldest, Version+1) }, banger.CodeVersion, nil},
		{"silence", func(c net.Conn) {}, "", context.DeadlineExceeded},
		{"silence of one who listens", func(c net.Conn) { io.Copy(io.Discard, c) }, "", context.DeadlineExceeded},
		{"the answer to another only", func(c net.Conn) { readHello(c); c.Write(reply(old, Version)) }, "",
			context.DeadlineExceeded},
		{"the channel ends", func(c net.Conn) { readHello(c); c.Close() }, "", io.EOF},
		{"the channel ends within the answer", func(c net.Conn) {
			n, _ := readHello(c)
			c.Write(reply(n, Version)[:20])
			c.Close()
		}, "", io.ErrUnexpectedEOF},
		{"nothing more is said and nothing read", func(c net.Conn) {
			c.(interface{ CloseWrite() error }).CloseWrite()
		}, "", io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host, agent := processtest.SocketPair(t)
			limit := processtest.Patience
			if tt.err == context.DeadlineExceeded {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			go tt.guest(agent)
			m, err := Connect(ctx, host)
			switch {
			case err == nil:
				m.Close()
				if tt.err != nil || tt.code != "" {
					t.Error("a session was agreed on")
				}
			case tt.code != "" && banger.CodeOf(err) != tt.code, tt.code == "" && !errors.Is(err, tt.err):
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestHandshakeWithStuckHello: a guest that answers while our next hello is stuck in the channel, and reads no more,
// does not block Connect beyond its context.
func TestHandshakeWithStuckHello(t *testing.T) {
	noLeaks(t)
	host, agent := net.Pipe()
	defer agent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		n, _ := readHello(agent)
		agent.Read(make([]byte, 1)) // the second hello is being sent and gets stuck
		agent.Write(reply(n, Version))
		cancel()
	}()
	result := make(chan error, 1)
	go func() { _, err := Connect(ctx, host); result <- err }()
	select {
	case err := <-result:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	case <-time.After(processtest.Patience):
		t.Fatal("the handshake outlives its context")
	}
}

// port models the guest's end of virtio-serial. It stays open while hosts come and go, delivers what the last host
// sent before it went, and drops data that is sent while no host is connected.
type port struct {
	mu      sync.Mutex
	host    net.Conn // our end of the socket to the host; nil if no host is connected
	arrived chan net.Conn
	closed  chan struct{}
}

func newPort() *port { return &port{arrived: make(chan net.Conn), closed: make(chan struct{})} }

func (p *port) get() net.Conn { p.mu.Lock(); defer p.mu.Unlock(); return p.host }

func (p *port) Read(b []byte) (int, error) {
	for {
		if c := p.get(); c != nil {
			if n, _ := c.Read(b); n > 0 {
				return n, nil
			}
		}
		select {
		case c := <-p.arrived:
			p.mu.Lock()
			p.host = c
			p.mu.Unlock()
		case <-p.closed:
			return 0, io.EOF
		}
	}
}

func (p *port) Write(b []byte) (int, error) {
	if c := p.get(); c != nil {
		c.Write(b)
	}
	return len(b), nil
}

// plug connects a new host once all bytes of the last one are read.
func (p *port) plug(t testing.TB) net.Conn {
	host, guest := processtest.SocketPair(t)
	p.arrived <- guest
	return host
}

// TestHostReconnects: the agent's end stays the same while hosts come and go in the middle of streams and frames.
func TestHostReconnects(t *testing.T) {
	noLeaks(t)
	p := newPort()
	ended, ends := make(chan struct{}), make(chan error, 100)
	go func() {
		Serve(context.Background(), p, func(port uint32, c net.Conn) {
			defer c.Close()
			if port == 1 {
				echo(port, c)
				return
			}
			_, err := c.Write(make([]byte, 10*window)) // more than is ever read
			ends <- err
		})
		close(ended)
	}()
	leave := map[string]func(*Mux, net.Conn){
		"in good order": func(m *Mux, _ net.Conn) {},
		"with streams open and unread data": func(m *Mux, _ net.Conn) {
			for range 5 {
				io.ReadFull(dial(t, m, 2), make([]byte, 1))
			}
		},
		"within a header": func(m *Mux, c net.Conn) {
			c.Write(frameOf(m.s.id, frameData, 1, nil)[:headerSize/2])
		},
		"within a frame": func(m *Mux, c net.Conn) {
			c.Write(frameOf(m.s.id, frameData, 1, make([]byte, maxPayload))[:headerSize+10])
		},
		"within a frame of a hello's size": func(m *Mux, c net.Conn) {
			c.Write(frameOf(m.s.id, frameData, 1, make([]byte, helloSize))[:headerSize])
		},
		"with garbage": func(m *Mux, c net.Conn) { c.Write(noise(5, 10_000)) },
	}
	for how, leave := range leave {
		host := p.plug(t)
		m := connect(t, host)
		mustEcho(t, m)
		leave(m, host)
		m.Close()
		host = p.plug(t)
		m, err := Connect(processtest.WithPatience(t), host)
		if err != nil {
			t.Fatalf("after a host left %s: %v", how, err)
		}
		mustEcho(t, m)
		m.Close()
	}
	for range 5 {
		if err := <-ends; err == nil {
			t.Error("a stream of an old session went on")
		}
	}
	close(p.closed)
	<-ended
}

// frameOf returns the bytes of one frame on the channel.
func frameOf(session uint32, typ frameType, stream uint32, payload []byte) []byte {
	return append(appendHeader(nil, header{typ, session, stream, uint32(len(payload))}), payload...)
}
