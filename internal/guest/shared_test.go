package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// machine is a guest's memory as its host has it: pages anywhere, in any order.
type machine struct {
	memory []byte
	at     map[int64]int // guest-physical address of a page: where it is in memory
	deaf   bool          // what the host writes does not arrive
	moved  atomic.Int64
}

// newMachine returns a machine and its memory as the guest has it. Two pages of three
// follow each other.
func newMachine() (*machine, *Pages) {
	p := &Pages{Memory: make([]byte, SharedSize)}
	m := &machine{memory: p.Memory, at: map[int64]int{}}
	for i := range sharedPages {
		a := int64(i+i/3) * pageSize
		m.at[a] = i * pageSize
		p.Addresses = append(p.Addresses, uint64(a))
	}
	return m, p
}

func (m *machine) access(p []byte, at int64, move func(p, memory []byte) int) (int, error) {
	for n := 0; n < len(p); {
		page, ok := m.at[(at+int64(n))/pageSize*pageSize]
		if !ok {
			return n, errors.New("no memory")
		}
		in := int(at+int64(n)) % pageSize
		n += move(p[n:], m.memory[page+in:page+pageSize])
	}
	m.moved.Add(int64(len(p)))
	return len(p), nil
}

func (m *machine) ReadAt(p []byte, at int64) (int, error) {
	return m.access(p, at, func(p, memory []byte) int { return copy(p, memory) })
}

func (m *machine) WriteAt(p []byte, at int64) (int, error) {
	if m.deaf {
		return len(p), nil
	}
	return m.access(p, at, func(p, memory []byte) int { return copy(memory, p) })
}

// sharing is a session whose ends share memory. Its agent answers with what it borrows.
func sharing(t *testing.T, ram RAM, allocate func() (*Pages, error)) *Mux {
	t.Helper()
	noLeaks(t)
	host, agent := socketPair(t)
	ended := make(chan error, 1)
	go func() {
		ended <- ServeMux(context.Background(), agent, allocate, func(_ uint32, c net.Conn) { defer c.Close(); lendingEcho(c.(*stream)) })
		close(ended)
	}()
	t.Cleanup(func() { agent.Close(); drain(ended) })
	m, err := ConnectMux(withPatience(t), host, ram)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// lendingEcho sends back what comes, from borrowed buffers where there are any.
func lendingEcho(c *stream) {
	own := make([]byte, maxPayload)
	for {
		b := c.Borrow()
		if b == nil {
			b = own
		}
		n, err := io.ReadAtLeast(c, b, 100_000)
		if n > 0 {
			if _, werr := c.Write(b[:n]); werr == nil {
				b = nil
			}
		}
		c.Return(b)
		if err != nil {
			c.CloseWrite()
			return
		}
	}
}

func mustEchoMuch(t *testing.T, m *Mux) {
	t.Helper()
	c, sent := dial(t, m, 1), noise(7, 12<<20)
	defer c.Close()
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-wrote); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes come back of %d, %v", len(got), len(sent), err)
	}
}

// Once much has been sent, payloads of both directions go by the guest's memory, and all
// slots are free again in the end.
func TestMuchGoesByMemory(t *testing.T) {
	ram, pages := newMachine()
	var calls atomic.Int32
	m := sharing(t, ram, func() (*Pages, error) { calls.Add(1); return pages, nil })
	mustEcho(t, m)
	if calls.Load() != 0 {
		t.Error("little has been sent, and memory is made")
	}
	for range 3 {
		mustEchoMuch(t, m)
	}
	if !m.Shared() || calls.Load() != 1 {
		t.Fatalf("shared: %v; memory was made %d times", m.Shared(), calls.Load())
	}
	if moved := ram.moved.Load(); moved < 60<<20 {
		t.Errorf("of 72 MiB %d MiB went by memory", moved>>20)
	}
	slots := &m.s.host.slots
	slots.mu.Lock()
	defer slots.mu.Unlock()
	if free := len(slots.free); free != slotsEach { // the guest gives each back before the end of its stream
		t.Errorf("%d of %d slots are free", free, slotsEach)
	}
}

// Where the ends do not mean the same memory, or there is none, all goes by the channel.
func TestWithoutMemoryAllGoesByTheChannel(t *testing.T) {
	for name, s := range map[string]struct {
		spoil func(m *machine, p *Pages)
		err   error
	}{
		"there is none":                    {func(*machine, *Pages) {}, errors.New("none")},
		"it is too short":                  {func(_ *machine, p *Pages) { p.Memory = p.Memory[:SharedSize-pageSize] }, nil},
		"an address is no memory":          {func(_ *machine, p *Pages) { p.Addresses[5] = 1 << 40 }, nil},
		"an address is beyond all":         {func(_ *machine, p *Pages) { p.Addresses[5] = 1<<64 - pageSize }, nil},
		"an address is within a page":      {func(_ *machine, p *Pages) { p.Addresses[5]++ }, nil},
		"two pages are one":                {func(_ *machine, p *Pages) { p.Addresses[5] = p.Addresses[6] }, nil},
		"it is other memory":               {func(m *machine, _ *Pages) { m.memory = make([]byte, SharedSize) }, nil},
		"what the host writes is not seen": {func(m *machine, _ *Pages) { m.deaf = true }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			ram, pages := newMachine()
			s.spoil(ram, pages)
			m := sharing(t, ram, func() (*Pages, error) { return pages, s.err })
			for range 2 {
				mustEchoMuch(t, m)
			}
			if m.Shared() {
				t.Error("memory is shared")
			}
		})
	}
}

// A guest that breaks the rules of memory ends its session and nothing else.
func TestGuestBreaksTheRulesOfMemory(t *testing.T) {
	one := func(i, n uint32) []byte { return join(number(i), number(n)) }
	offer := make([]byte, 8*sharedPages)
	for name, s := range map[string]struct {
		state   sharedState
		message string
		bytes   func(session uint32) []byte
	}{
		"an offer that nobody asked for":    {sharedNone, "nobody asked for", func(s uint32) []byte { return frame(s, frameOffer, 0, offer) }},
		"an offer of a wrong length":        {sharedAsked, "memory that is none", func(s uint32) []byte { return frame(s, frameOffer, 0, offer[8:]) }},
		"two offers":                        {sharedAsked, "nobody asked for", func(s uint32) []byte { return repeat(2, frame(s, frameOffer, 0, offer)) }},
		"nothing is accepted":               {sharedAsked, "nobody offered", func(s uint32) []byte { return frame(s, frameAccept, 0, nil) }},
		"a slot without memory":             {sharedAsked, "without memory", func(s uint32) []byte { return frame(s, frameShared, 1, one(slotsEach, 9)) }},
		"a slot of the host's":              {sharedReady, "slot that there is not", func(s uint32) []byte { return frame(s, frameShared, 1, one(0, 9)) }},
		"a slot beyond the last":            {sharedReady, "slot that there is not", func(s uint32) []byte { return frame(s, frameShared, 1, one(2*slotsEach, 9)) }},
		"a slot with too much":              {sharedReady, "slot that there is not", func(s uint32) []byte { return frame(s, frameShared, 1, one(slotsEach, maxPayload+1)) }},
		"a slot with nothing":               {sharedReady, "slot that there is not", func(s uint32) []byte { return frame(s, frameShared, 1, one(slotsEach, 0)) }},
		"more than the window":              {sharedReady, "more data than the window", func(s uint32) []byte { return repeat(5, frame(s, frameShared, 1, one(slotsEach, maxPayload))) }},
		"a slot is given back that is free": {sharedReady, "not taken", func(s uint32) []byte { return frame(s, frameFree, 0, number(1)) }},
		"a slot is given back of no number": {sharedReady, "not taken", func(s uint32) []byte { return frame(s, frameFree, 0, number(1<<32-1)) }},
		"the guest asks":                    {sharedReady, "wrong end", func(s uint32) []byte { return frame(s, frameAsk, 0, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			m, guest := lie(t)
			ram, pages := newMachine()
			m.s.host = &hostShared{ram: ram, state: s.state} // before the guest says anything
			if s.state == sharedReady {
				m.s.host.addresses = pages.Addresses
				m.s.host.slots.offer(0)
			}
			dial(t, m, 1)
			go guest.Write(s.bytes(m.s.id))
			select {
			case <-m.Done():
			case <-time.After(patience):
				t.Fatal("the session goes on")
			}
			if err := m.Err(); !strings.Contains(err.Error(), s.message) {
				t.Errorf("the session ended with %v", err)
			}
		})
	}
}

// The memory outlives a session, but not into the next one while somebody still reads
// what the last one has brought.
func TestMemoryOfTheSessionBefore(t *testing.T) {
	noLeaks(t)
	ram, pages := newMachine()
	p := newPort()
	held, let := make(chan []byte), make(chan struct{})
	ended := make(chan struct{})
	go func() {
		ServeMux(context.Background(), p, func() (*Pages, error) { return pages, nil }, func(port uint32, c net.Conn) {
			defer c.Close()
			if port != 9 {
				lendingEcho(c.(*stream))
				return
			}
			b, _ := c.(*stream).ReadChunk(maxPayload)
			held <- b
			<-let
			held <- b
			c.(*stream).Release()
		})
		close(ended)
	}()
	defer func() { close(p.closed); <-ended }()
	session := func() *Mux {
		m, err := ConnectMux(withPatience(t), p.plug(t), ram)
		if err != nil {
			t.Fatal(err)
		}
		mustEchoMuch(t, m)
		return m
	}
	m, sent := session(), noise(1, maxPayload)
	if _, err := dial(t, m, 9).Write(sent); err != nil || !m.Shared() {
		t.Fatalf("%v, shared: %v", err, m.Shared())
	}
	<-held
	m.Close()
	m = session()
	if m.Shared() {
		t.Error("the memory is shared while a handler reads it")
	}
	m.Close()
	close(let)
	if b := <-held; !bytes.Equal(b, sent) {
		t.Error("what a handler holds has changed")
	}
	shared := false
	for deadline := time.Now().Add(patience); !shared && time.Now().Before(deadline); { // handlers of the last session may still be ending
		m = session()
		shared = m.Shared()
		m.Close()
	}
	if !shared {
		t.Error("the memory is not shared again")
	}
}

// FuzzMemory lets a guest with memory say anything.
func FuzzMemory(f *testing.F) {
	n := nonce{1, 2, 3, 4}
	s := n.session()
	f.Add(frame(s, frameShared, 1, join(number(slotsEach), number(100))))
	f.Add(join(frame(s, frameFree, 0, number(0)), frame(s, frameAccept, 0, nil)))
	f.Add(frame(s, frameOffer, 0, binary.BigEndian.AppendUint64(nil, 4096)))
	f.Fuzz(func(t *testing.T, said []byte) {
		ram, pages := newMachine()
		m := &Mux{s: newSession(io.Discard, s, nil)}
		m.s.host = &hostShared{ram: ram, nonce: n, state: sharedReady, addresses: pages.Addresses}
		m.s.host.slots.offer(0)
		m.s.host.send(make([]byte, maxPayload))
		c, _ := m.s.open(1)
		m.readLoop(bufio.NewReaderSize(bytes.NewReader(said), readBuffer), n)
		if m.Err() == nil {
			t.Error("the session ended without an error")
		}
		if c.queued > window {
			t.Errorf("%d bytes are held", c.queued)
		}
	})
}
