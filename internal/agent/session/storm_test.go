package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/agent/transcript"
	"banger/internal/frame"
	"banger/internal/testing/processtest"
)

// The storm has this many chains of clients, which are attached at the same time. Each chain has so many clients that
// are cut off, and a last one. A session has the least room that there can be, so that a chain which is behind by more
// misses bytes.
const (
	chains    = 200
	cutOff    = 5
	stormRoom = 2 * transcript.SegmentSize
)

// storm is a session that writes while clients come and go.
type storm struct {
	ctx    context.Context
	m      *Manager
	s      *session
	p      *command.Process
	seed   uint64
	hunger chan struct{} // has a value if a client waits for output
	fed    []byte        // what was written to each of the two streams

	mu      sync.Mutex
	data    []byte        // what the session has written, by position
	streams []byte        // the stream of each byte
	grown   chan struct{} // closed and replaced when data grows

	clients, inFrame, gaps atomic.Int64
}

// newStorm starts a session that writes what it reads to both streams.
func newStorm(t *testing.T) *storm {
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("BANGER_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("BANGER_SEED=%d", seed)
	m := manager(t, t.TempDir())
	m.quota = transcript.NewQuota(stormRoom, stormRoom)
	_, err := m.Start(shell("storm", "exec tee /dev/stderr"))
	must(t, err)
	s, err := m.find("storm")
	must(t, err)
	return &storm{ctx: processtest.WithPatience(t), m: m, s: s, p: s.process(), seed: seed, hunger: make(chan struct{}, 1),
		grown: make(chan struct{})}
}

// record notes all that the session writes, until its end. It is at hand for each byte before that can go.
func (s *storm) record() error {
	r := s.s.log.Read(0)
	defer r.Close()
	for {
		record, more := r.Next()
		switch {
		case record.Data != nil:
			if int(record.Position) != len(s.data) { // nobody else changes it
				return fmt.Errorf("byte %d follows at %d", record.Position, len(s.data))
			}
			s.mu.Lock()
			s.data = append(s.data, record.Data...)
			s.streams = append(s.streams, bytes.Repeat([]byte{byte(record.Stream)}, len(record.Data))...)
			close(s.grown)
			s.grown = make(chan struct{})
			s.mu.Unlock()
		case more == nil:
			return nil
		default:
			<-more
		}
	}
}

// written returns what the session has written, and a channel that is closed when there is more.
func (s *storm) written() (data, streams []byte, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data, s.streams, s.grown
}

// await returns when the session has written n bytes. With ask it makes it write as long as it waits.
func (s *storm) await(n uint64, ask bool) error {
	for {
		data, _, more := s.written()
		if uint64(len(data)) >= n {
			return nil
		}
		if ask {
			s.ask()
		}
		select {
		case <-more:
		case <-s.ctx.Done():
			return fmt.Errorf("the session has written %d bytes, and not %d", len(data), n)
		}
	}
}

// ask makes the session write more.
func (s *storm) ask() {
	select {
	case s.hunger <- struct{}{}:
	default:
	}
}

// feed makes the session write a random number of lines each time that a client waits, until done is closed.
func (s *storm) feed(done <-chan struct{}) error {
	defer s.p.EndStdin()
	random := rand.New(rand.NewPCG(s.seed, chains))
	for line := 0; ; {
		select {
		case <-done:
			return nil
		case <-s.hunger:
		case <-s.ctx.Done():
			return errors.New("the clients do not come to an end")
		}
		var more []byte
		for n := 1 + random.IntN(32<<10); len(more) < n; line++ {
			more = fmt.Appendf(more, "%d\n", line)
		}
		s.fed = append(s.fed, more...)
		s.p.FeedVector([][]byte{more})
		if err := s.await(uint64(2*len(s.fed)), false); err != nil {
			return err
		}
	}
}

// chain is a row of clients. Each goes on where the one before was cut off.
type chain struct {
	*storm
	random *rand.Rand
	lazy   bool   // once it stays away for so long that bytes go
	at     uint64 // the position of the next byte
	over   bool   // a client has seen the end of the session

	// head and payload are what is read of the present frame. left bytes of its payload are still to come.
	head, payload []byte
	left          int
}

// run has all clients of a chain. It calls cut when only the last one remains.
func (c *chain) run(cut func()) error {
	err := c.runCutOff()
	cut()
	if err != nil {
		return err
	}
	return c.client(1 << 62)
}

func (c *chain) runCutOff() error {
	data, _, _ := c.written()
	c.at = uint64(c.random.IntN(len(data) + 1))
	for i := range cutOff {
		if err := c.client(1 + c.random.IntN(2<<c.random.IntN(16))); err != nil {
			return err
		}
		if c.lazy && i == 0 {
			if err := c.await(c.at+stormRoom, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// client attaches, reads cut bytes of frames, whatever they are, and goes away. It returns when the session has
// noticed. One in eight stops for a while in the middle.
func (c *chain) client(cut int) error {
	at := c.at
	v := banger.SessionView{Position: &at, ReadOnly: c.random.IntN(2) == 0}
	if c.random.IntN(4) == 0 {
		v = banger.SessionView{Log: &banger.LogView{Tail: -1, Position: at, Follow: true}}
	}
	near, far := net.Pipe()
	a, err := c.m.Attach(far, "storm", v)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() { // ends with the client
		a.Serve(frame.NewReader(far))
		far.Close()
		close(done)
	}()
	defer func() { near.Close(); <-done }()
	c.clients.Add(1)
	c.head, c.left = c.head[:0], 0
	err = c.read(near, cut)
	if len(c.head) > 0 {
		c.inFrame.Add(1)
	}
	return err
}

func (c *chain) read(conn net.Conn, cut int) error {
	deadline, _ := c.ctx.Deadline()
	conn.SetReadDeadline(deadline)
	stop := -1
	if cut < 1<<20 && c.random.IntN(8) == 0 {
		stop = c.random.IntN(cut)
	}
	buf := make([]byte, 64<<10)
	for got := 0; got < cut && !c.over; {
		if data, _, _ := c.written(); c.at >= uint64(len(data)) {
			c.ask()
		}
		n, err := conn.Read(buf[:min(len(buf), 1+c.random.IntN(len(buf)), cut-got)])
		if err != nil {
			return fmt.Errorf("after %d of %d bytes of frames: %w", got, cut, err)
		}
		if err := c.take(buf[:n]); err != nil {
			return err
		}
		if got += n; stop >= 0 && got > stop {
			stop = -1
			data, _, _ := c.written()
			if err := c.await(uint64(len(data)+c.random.IntN(256<<10)), true); err != nil {
				return err
			}
		}
	}
	return nil
}

// take takes what a client has read.
func (c *chain) take(b []byte) error {
	for len(b) > 0 {
		if len(c.head) < frame.Header {
			n := min(frame.Header-len(c.head), len(b))
			c.head, b = append(c.head, b[:n]...), b[n:]
			if len(c.head) < frame.Header {
				return nil
			}
			c.left, c.payload = int(binary.BigEndian.Uint32(c.head[4:])), c.payload[:0]
		}
		n := min(c.left, len(b))
		if err := c.takePayload(frame.Type(c.head[0]), b[:n], c.left-n); err != nil {
			return err
		}
		b, c.left = b[n:], c.left-n
		if c.left == 0 {
			c.head = c.head[:0]
		}
	}
	return nil
}

// takePayload takes a part of a frame, of which left bytes are still to come.
func (c *chain) takePayload(kind frame.Type, p []byte, left int) error {
	if kind == frame.Stdout || kind == frame.Stderr {
		return c.see(kind, p)
	}
	if c.payload = append(c.payload, p...); left > 0 {
		return nil
	}
	switch kind {
	case frame.Started:
		return nil
	case frame.Stamp:
		return c.move()
	case frame.Exit:
		var end banger.Session
		if err := json.Unmarshal(c.payload, &end); err != nil || end.End != c.at {
			return fmt.Errorf("at %d the session ends, at %d, %v", c.at, end.End, err)
		}
		c.over = true
		return nil
	}
	return fmt.Errorf("frame %d: %q", kind, c.payload)
}

// see compares output with what the session has written at its position.
func (c *chain) see(kind frame.Type, p []byte) error {
	end := c.at + uint64(len(p))
	if err := c.await(end, false); err != nil {
		return err
	}
	data, streams, _ := c.written()
	if !bytes.Equal(data[c.at:end], p) || bytes.Count(streams[c.at:end], []byte{byte(kind)}) != len(p) {
		return fmt.Errorf("the bytes %d to %d of stream %d are others", c.at, end, kind)
	}
	c.at = end
	return nil
}

// move takes a stamp. What it leaves out must be gone.
func (c *chain) move() error {
	position, _, ok := frame.ParseStamp(c.payload)
	if first := c.s.log.First(); !ok || position < c.at || position > c.at && position > first {
		return fmt.Errorf("byte %d follows at %d, and %d is there", position, c.at, first)
	}
	if position > c.at {
		c.gaps.Add(1)
	}
	c.at = position
	return nil
}

// TestAThousandClientsSeeEachByteOnce has chains of clients that come and go at the same time, while the session writes
// to both streams and its oldest output goes. Each byte from where a chain begins is seen exactly once, at its position
// and of its stream, or told to be gone.
func TestAThousandClientsSeeEachByteOnce(t *testing.T) {
	s := newStorm(t)
	recorded := make(chan error, 1)
	go func() { recorded <- s.record() }() // ends with the session
	var all, cutting sync.WaitGroup
	cutting.Add(chains)
	for i := range chains {
		c := &chain{storm: s, random: rand.New(rand.NewPCG(s.seed, uint64(i))), lazy: i%50 == 0}
		all.Go(func() {
			if err := c.run(cutting.Done); err != nil {
				t.Errorf("chain %d: %v", i, err)
			}
		})
	}
	cut := make(chan struct{})
	go func() { // ends with the clients that are cut off
		cutting.Wait()
		close(cut)
	}()
	if err := s.feed(cut); err != nil {
		t.Error(err)
	}
	all.Wait()
	if err := <-recorded; err != nil {
		t.Error(err)
	}
	t.Logf("%d clients, %d of them cut off in a frame, have seen %d bytes and %d gaps", s.clients.Load(),
		s.inFrame.Load(), len(s.data), s.gaps.Load())
	if s.clients.Load() < 1000 || s.inFrame.Load() < 100 || s.gaps.Load() == 0 {
		t.Error("the storm is too weak")
	}
	for _, stream := range []frame.Type{frame.Stdout, frame.Stderr} {
		var got []byte
		for i, b := range s.data {
			if s.streams[i] == byte(stream) {
				got = append(got, b)
			}
		}
		if !bytes.Equal(got, s.fed) {
			t.Errorf("stream %d has %d bytes, and not the %d that were written", stream, len(got), len(s.fed))
		}
	}
}
