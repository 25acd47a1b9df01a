package mux

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"banger"
)

const (
	helloInterval = 200 * time.Millisecond
	// paddedEvery says which of the repeated hellos come after padding. The padding completes a frame that an earlier
	// session cut short.
	paddedEvery = 5
	readBuffer  = 128 << 10
	// guestReadBuffer is small, so payloads bypass it.
	guestReadBuffer = 4 << 10
)

// Mux is the host's end of a session: many streams over one channel.
type Mux struct {
	s  *session
	ch io.ReadWriteCloser
	wg sync.WaitGroup
}

// Connect agrees on a new session with the agent behind ch. It waits until ctx ends, because a booting guest answers
// only after seconds. From then on it owns ch. It closes ch when ctx ends, but not after another error.
func Connect(ctx context.Context, ch io.ReadWriteCloser) (*Mux, error) {
	var n nonce
	rand.Read(n[:])
	r := bufio.NewReaderSize(ch, readBuffer)
	type answer struct {
		versions banger.Versions
		err      error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the answer or when ch is closed
		for {
			if err := scanFor(r, replyMagic); err != nil {
				answered <- answer{err: err}
				return
			}
			got, theirs, err := readHelloBody(r)
			if err != nil || got == n {
				answered <- answer{theirs, err}
				return
			}
		}
	}()
	stop := make(chan struct{})
	sent := make(chan error, 1)
	go func() { sent <- sendHellos(ch, n, stop) }()
	select {
	case a := <-answered:
		close(stop)
		// A hello may be stuck in a channel that the guest no longer reads.
		unstick := context.AfterFunc(ctx, func() { ch.Close() })
		err := <-sent
		if !unstick() {
			return nil, ctx.Err()
		}
		if a.err == nil {
			a.err = err
		}
		if a.err != nil {
			return nil, fmt.Errorf("agreeing with the agent: %w", a.err)
		}
		if !ours.Meet(a.versions) {
			return nil, banger.Errorf(banger.CodeVersion,
				"the agent speaks versions %d to %d of the protocol, and this banger %d to %d",
				a.versions.Oldest, a.versions.Newest, Oldest, Version).
				WithHint("use the banger that the VM was started with, or stop and start the VM")
		}
	case <-ctx.Done():
		close(stop)
		ch.Close()
		<-sent
		<-answered
		return nil, ctx.Err()
	}
	m := &Mux{s: newSession(ch, n.session(), nil), ch: ch}
	m.wg.Go(m.s.writeLoop)
	m.wg.Go(func() { m.readLoop(r, n) })
	return m, nil
}

// sendHellos sends hellos until stop is closed. If a write blocks because no guest reads yet, it waits; closing the
// channel ends the wait.
func sendHellos(w io.Writer, n nonce, stop <-chan struct{}) error {
	tick := time.NewTicker(helloInterval)
	defer tick.Stop()
	for i := 0; ; i++ {
		var b []byte
		if i%paddedEvery == paddedEvery-1 {
			b = make([]byte, headerSize+maxPayload)
		}
		if _, err := w.Write(appendHello(b, helloMagic, n)); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
	}
}

func (m *Mux) readLoop(r *bufio.Reader, n nonce) {
	var b [headerSize]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			m.s.end(fmt.Errorf("reading from the guest: %w", noEOF(err)))
			return
		}
		if string(b[:]) == replyMagic { // the answer to a hello that was sent twice
			if got, _, err := readHelloBody(r); err != nil || got != n {
				m.s.end(banger.Errorf(banger.CodeGuest, "the guest answered a hello of another session"))
				return
			}
			continue
		}
		h, err := parseHeader(b[:])
		if err == nil && h.session != m.s.id {
			err = errors.New("frame of another session")
		}
		if err == nil {
			err = m.s.receive(h, r)
		}
		if err != nil {
			m.s.end(banger.Errorf(banger.CodeGuest, "the guest broke the protocol: %w", err))
			return
		}
	}
}

// Dial opens a stream to a port of the agent. If nothing serves the port, the first read fails with a reset.
func (m *Mux) Dial(_ context.Context, port uint32) (net.Conn, error) { return m.s.open(port) }

// Done is closed when the session has ended.
func (m *Mux) Done() <-chan struct{} { return m.s.done }

// Err returns the reason why the session has ended, or nil.
func (m *Mux) Err() error { return m.s.failure() }

// Close ends the session, its streams and the channel.
func (m *Mux) Close() error {
	m.s.end(net.ErrClosed)
	err := m.ch.Close()
	m.wg.Wait()
	return err
}

// Serve is the guest's end. It serves one session after the other over ch and calls handle, in a new goroutine, for
// each stream that the host opens. A new hello ends the streams of the session before. Serve returns when ch fails;
// io.EOF means that the channel itself has ended.
func Serve(ctx context.Context, ch io.ReadWriter, handle func(port uint32, c net.Conn)) error {
	g := &guestEnd{ch: ch, r: bufio.NewReaderSize(ch, guestReadBuffer), handle: handle}
	err := g.run()
	g.replace(nil, fmt.Errorf("reading from the host: %w", noEOF(err)))
	return err
}

type guestEnd struct {
	ch      io.ReadWriter
	r       *bufio.Reader
	handle  func(uint32, net.Conn)
	current *session
	nonce   nonce
	wg      sync.WaitGroup
}

func (g *guestEnd) run() error {
	var b [headerSize]byte
	for {
		if _, err := io.ReadFull(g.r, b[:]); err != nil {
			return err
		}
		h, err := parseHeader(b[:])
		if err == nil && g.current != nil && h.session == g.current.id {
			if err := g.current.receive(h, g.r); err == nil {
				continue
			}
			g.replace(nil, errors.New("the host broke the protocol"))
		}
		// Padding, a hello, or the rest of a frame of an earlier session.
		if string(b[:]) != helloMagic {
			if err := g.scan(b[:]); err != nil {
				return err
			}
		}
		if err := g.hello(); err != nil {
			return err
		}
	}
}

// scan looks for the next hello, which may have begun in b, the bytes already read.
func (g *guestEnd) scan(b []byte) error {
	return scanFor(&prefixed{append([]byte(nil), b...), g.r}, helloMagic)
}

// prefixed reads b and then r.
type prefixed struct {
	b []byte
	r io.ByteReader
}

func (p *prefixed) ReadByte() (byte, error) {
	if len(p.b) == 0 {
		return p.r.ReadByte()
	}
	b := p.b[0]
	p.b = p.b[1:]
	return b, nil
}

// noEOF turns io.EOF into another error, because the end of the channel is not the end of a stream.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// hello reads a hello's body and answers it. If the nonce is that of the current session, the host had not yet seen
// our answer, and the session continues.
func (g *guestEnd) hello() error {
	n, theirs, err := readHelloBody(g.r)
	if err != nil {
		return err
	}
	if g.current == nil || n != g.nonce {
		g.replace(nil, errors.New("the host began a new session"))
		if _, err := g.ch.Write(appendHello(nil, replyMagic, n)); err != nil {
			return err
		}
		if ours.Meet(theirs) {
			g.nonce = n
			s := newSession(g.ch, n.session(), func(st *stream) { g.handle(st.port, st) })
			g.replace(s, nil)
		}
		return nil
	}
	g.current.out.Lock() // between two frames, through the session's writer
	g.current.control = appendHello(g.current.control, replyMagic, n)
	g.current.ready.Signal()
	g.current.out.Unlock()
	return nil
}

// replace ends the current session and starts s, unless s is nil.
func (g *guestEnd) replace(s *session, why error) {
	if g.current != nil {
		g.current.end(why)
		g.wg.Wait()
	}
	g.current = s
	if s != nil {
		g.wg.Go(s.writeLoop)
	}
}
