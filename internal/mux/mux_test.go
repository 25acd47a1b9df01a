package mux

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banger/internal/testing/processtest"
)

// noLeaks fails t if goroutines are left after all its other clean-ups.
func noLeaks(t testing.TB) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}

// channels are the kinds of channels over which a session must work: a pipe passes each byte on synchronously, a
// socket has a buffer, and a guest's channel may take vectors.
var channels = map[string]func(testing.TB) (net.Conn, net.Conn){
	"pipe":   func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() },
	"socket": processtest.SocketPair,
	"vectors": func(t testing.TB) (net.Conn, net.Conn) {
		host, agent := processtest.SocketPair(t)
		return host, vectored{agent}
	},
}

type vectored struct{ net.Conn }

func (v vectored) WriteVector(parts [][]byte) error {
	_, err := (*net.Buffers)(&parts).WriteTo(v.Conn)
	return err
}

// serve runs the guest's end until the test is over and sends its result on the returned channel.
func serve(t testing.TB, ch net.Conn, handle func(uint32, net.Conn)) <-chan error {
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(context.Background(), ch, func(p uint32, c net.Conn) { defer c.Close(); handle(p, c) })
		close(ended)
	}()
	t.Cleanup(func() { ch.Close(); drain(ended) })
	return ended
}

func drain[T any](c <-chan T) {
	for range c {
	}
}

// connect agrees on a session over a channel.
func connect(t testing.TB, host net.Conn) *Mux {
	t.Helper()
	m, err := Connect(processtest.WithPatience(t), host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func start(t testing.TB, handle func(uint32, net.Conn)) *Mux {
	t.Helper()
	noLeaks(t)
	host, agent := processtest.SocketPair(t)
	serve(t, agent, handle)
	return connect(t, host)
}

func dial(t testing.TB, m *Mux, port uint32) *stream {
	t.Helper()
	c, err := m.Dial(context.Background(), port)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(processtest.Patience))
	return c.(*stream)
}

func echo(_ uint32, c net.Conn) { io.Copy(c, c); c.(*stream).CloseWrite() }

// mustEcho checks that a stream of m works in both directions.
func mustEcho(t testing.TB, m *Mux) {
	t.Helper()
	c := dial(t, m, 1)
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Fatalf("the echo is %q, %v", got, err)
	}
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	r.Read(b)
	return b
}

// TestManyStreams sends different data in both directions over many streams at once. The guest sends its own data
// while it reads ours, and after our end it sends the checksum of what it read.
func TestManyStreams(t *testing.T) {
	size := func(port uint32) int { return int(port) * int(port) * 331 % (3 * window) }
	for name, channel := range channels {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			host, agent := channel(t)
			serve(t, agent, func(port uint32, c net.Conn) {
				sent := make(chan error, 1)
				go func() {
					_, err := io.Copy(c, bytes.NewReader(noise(uint64(port)+1000, size(port))))
					sent <- err
				}()
				sum := sha256.New()
				if _, err := io.Copy(sum, c); err != nil {
					t.Error(err)
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
				c.Write(sum.Sum(nil))
				c.(*stream).CloseWrite()
			})
			m := connect(t, host)
			var wg sync.WaitGroup
			for port := uint32(0); port < 60; port++ {
				c := dial(t, m, port)
				wg.Go(func() {
					defer c.Close()
					ours := noise(uint64(port), size(port)/2)
					wg.Go(func() {
						if _, err := io.Copy(c, bytes.NewReader(ours)); err != nil {
							t.Error(err)
						}
						c.CloseWrite()
					})
					got, err := io.ReadAll(c)
					want := sha256.Sum256(ours)
					if all := append(noise(uint64(port)+1000, size(port)), want[:]...); err != nil || !bytes.Equal(got, all) {
						t.Errorf("stream %d gave %d bytes that are not the expected %d: %v", port, len(got), len(all), err)
					}
				})
			}
			wg.Wait()
			if n := streamCount(m.s); n != 0 {
				t.Errorf("the session remembers %d streams that are over", n)
			}
		})
	}
}

func streamCount(s *session) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// TestHalfClose: a half-close ends only one direction.
func TestHalfClose(t *testing.T) {
	m := start(t, func(_ uint32, c net.Conn) {
		all, _ := io.ReadAll(c)
		fmt.Fprintf(c, "you said %q", all)
		c.(*stream).CloseWrite()
	})
	c := dial(t, m, 1)
	io.WriteString(c, "some")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("more")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing after CloseWrite gives %v", err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Errorf("a second CloseWrite gives %v", err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != `you said "some"` {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestFlowControl: a writer gets at most one window ahead of a reader that does not read. Other streams are not
// affected, and the reader's side holds at most three windows, even for small pieces.
func TestFlowControl(t *testing.T) {
	release := make(chan struct{})
	counted := make(chan int, 1)
	m := start(t, func(port uint32, c net.Conn) {
		switch port {
		case 1:
			echo(port, c)
		case 2: // reads only after release
			<-release
			n, _ := io.Copy(io.Discard, c)
			counted <- int(n)
		default: // sends pieces of port bytes without end
			b := make([]byte, port)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
	})
	c := dial(t, m, 2)
	c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	n, err := c.Write(make([]byte, 2*window))
	if n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d bytes to one who does not read: %v", n, err)
	}
	mustEcho(t, m)

	for _, piece := range []uint32{3, 16<<10 + 1, 200_000} {
		c := dial(t, m, piece)
		await(t, c, func() bool { return c.queued > window-int(piece) })
		held := 0
		c.mu.Lock()
		for _, b := range c.received {
			held += cap(b)
		}
		c.mu.Unlock()
		if held > 3*window {
			t.Errorf("%d bytes are held for a window of %d that came in pieces of %d", held, window, piece)
		}
		mustEcho(t, m)
		if _, err := io.CopyN(io.Discard, c, window+window/2); err != nil {
			t.Errorf("reading on after the pause: %v", err)
		}
		c.Close()
	}

	close(release)
	c.SetWriteDeadline(time.Time{})
	if n, err := c.Write(make([]byte, window)); n != window || err != nil {
		t.Errorf("wrote %d, %v after the reader woke", n, err)
	}
	c.CloseWrite()
	if n := <-counted; n != 2*window {
		t.Errorf("the reader got %d bytes of %d", n, 2*window)
	}
}

// await waits until cond returns true. It calls cond with c.mu held after each change of c.
func await(t testing.TB, c *stream, cond func() bool) {
	t.Helper()
	for limit := time.After(processtest.Patience); ; {
		c.mu.Lock()
		ok, changed := cond(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatal("what is awaited did not happen")
		}
	}
}

func TestStreamLimit(t *testing.T) {
	m := start(t, echo)
	var first *stream
	for range maxStreams {
		c := dial(t, m, 1)
		if first == nil {
			first = c
		}
	}
	if _, err := m.Dial(context.Background(), 1); err == nil {
		t.Fatal("one stream more than the limit was opened")
	}
	first.Close()
	mustEcho(t, m)
}

// TestCloseAndReset: whichever way one side leaves, the other side notices.
func TestCloseAndReset(t *testing.T) {
	peer := make(chan error, 1)
	start := func(t *testing.T) *Mux {
		return start(t, func(port uint32, c net.Conn) {
			switch port {
			case 1: // sends something and closes
				io.WriteString(c, "bye")
			case 2: // reports how its stream ends
				_, err := io.Copy(io.Discard, c)
				peer <- err
			}
		})
	}
	t.Run("what the guest said before it closed arrives, then the reset", func(t *testing.T) {
		got, err := io.ReadAll(dial(t, start(t), 1))
		if string(got) != "bye" || !errors.Is(err, errReset) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("a port that nobody serves resets, for writers too", func(t *testing.T) {
		c := dial(t, start(t), 9)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, errReset) {
			t.Errorf("reading gives %v", err)
		}
		if _, err := c.Write(make([]byte, 1)); !errors.Is(err, errReset) {
			t.Errorf("writing gives %v", err)
		}
	})
	t.Run("our close is the guest's reset", func(t *testing.T) {
		c := dial(t, start(t), 2)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-peer; !errors.Is(err, errReset) {
			t.Errorf("the guest got %v", err)
		}
		_, rerr := c.Read(make([]byte, 1))
		_, werr := c.Write(make([]byte, 1))
		if !errors.Is(rerr, net.ErrClosed) || !errors.Is(werr, net.ErrClosed) || c.Close() != nil {
			t.Errorf("after Close, Read gives %v and Write %v", rerr, werr)
		}
	})
	t.Run("Close wakes those who wait", func(t *testing.T) {
		c := dial(t, start(t), 2)
		result := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); result <- err }()
		c.Close()
		if err := <-result; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a Read of a closed stream gives %v", err)
		}
		<-peer
	})
}

// TestLentBuffers: what ReadChunk lends stays unchanged until Release while more is received and read. A part that
// Read takes in between does not disturb it.
func TestLentBuffers(t *testing.T) {
	want := noise(5, 10*maxPayload)
	m := start(t, func(_ uint32, c net.Conn) {
		c.Write(want)
		c.(*stream).CloseWrite()
		io.Copy(io.Discard, c)
	})
	c := dial(t, m, 1)
	var got []byte
	var lent [][]byte
	held := 0
	for i := 0; ; i++ {
		if i%3 == 2 { // a header, for example
			b := make([]byte, 16)
			n, err := c.Read(b)
			if err != nil {
				break
			}
			lent, held = append(lent, b[:n]), held+n
		}
		b, err := c.ReadChunk(100_000)
		if err != nil {
			break
		}
		if lent, held = append(lent, b), held+len(b); held > window {
			got = append(got, bytes.Join(lent, nil)...)
			lent, held = nil, 0
			c.Release()
		}
	}
	got = append(got, bytes.Join(lent, nil)...)
	if !bytes.Equal(got, want) {
		t.Errorf("got %d of %d bytes, or others", len(got), len(want))
	}
	if n := c.Buffered(); n != 0 {
		t.Errorf("%d bytes are left at the end", n)
	}
}
