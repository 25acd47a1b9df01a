package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
)

// RAM is the memory of a running guest as its host reaches it. Offsets are guest-physical
// addresses; one that is no memory is an error.
type RAM interface {
	io.ReaderAt
	io.WriterAt
}

// Pages is memory of a guest that stays where it is for as long as the guest runs.
type Pages struct {
	Memory    []byte   // SharedSize long, beginning with a page
	Addresses []uint64 // guest-physical, of each page of Memory
}

// Slots are places for one payload each, in pages of the guest that the host writes to and
// reads from itself: a payload then costs an emulated guest a frame of a few bytes instead
// of a copy. Half of them are the host's to send in, the others the guest's.
//
// A payload begins so that what follows the header of a frame of package banger begins
// with a page, for guests that hand it on to a disk.
const (
	slotsEach   = 7
	pageSize    = 4 << 10
	slotLead    = pageSize - 8
	slotSize    = slotLead + maxPayload
	sharedPages = 2 * slotsEach * slotSize / pageSize
	// SharedSize is how much memory a guest gives for slots, in bytes.
	SharedSize = 2 * slotsEach * slotSize
	// sharedLeast is the shortest payload in bytes that goes by a slot.
	sharedLeast = 16 << 10
	// sharedAfter is how many bytes of payloads a session has moved when it is worth it.
	sharedAfter = 1 << 20
)

// What each end writes to each page before any slot is used, so that both know that they
// mean the same memory: the session's nonce and the page's number, at different places.
const (
	offerMark  = 0
	acceptMark = pageSize / 2
	markSize   = nonceSize + 8
)

func mark(n nonce, page int) []byte {
	return binary.BigEndian.AppendUint64(n[:len(n):len(n)], uint64(page))
}

// slot is a payload in a slot, as frameShared tells it.
type slot struct{ index, length uint32 }

func (s slot) append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, s.index), s.length)
}

func parseSlot(b []byte, first int) (slot, error) {
	s := slot{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	if s.index < uint32(first) || s.index >= uint32(first+slotsEach) || s.length == 0 || s.length > maxPayload {
		return s, errors.New("a slot that there is not")
	}
	return s, nil
}

// sender is an end's slots to send in.
type sender struct {
	mu   sync.Mutex
	free []uint32
	sent [2 * slotsEach]bool
}

// offer makes all slots from first on free.
func (f *sender) offer(first int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range slotsEach {
		f.free = append(f.free, uint32(first+i))
	}
}

// reset leaves no slot to send in.
func (f *sender) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free, f.sent = nil, [2 * slotsEach]bool{}
}

// take returns a free slot; false: there is none now.
func (f *sender) take() (uint32, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.free) == 0 {
		return 0, false
	}
	i := f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
	f.sent[i] = true
	return i, true
}

// put takes a slot back.
func (f *sender) put(i uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i >= uint32(len(f.sent)) || !f.sent[i] {
		return errors.New("a slot is given back that is not taken")
	}
	f.sent[i] = false
	f.free = append(f.free, i)
	return nil
}

// hostShared is the host's side of a session's slots. The guest is hostile: what is read
// of its memory is copied before anything looks at it, and addresses can only name memory
// that the guest has anyway.
type hostShared struct {
	ram   RAM
	nonce nonce

	mu        sync.Mutex
	moved     int // bytes of payloads, until the guest is asked
	state     sharedState
	addresses []uint64
	slots     sender
}

type sharedState int

const (
	sharedNone  sharedState = iota
	sharedAsked             // the guest is to offer pages
	sharedTried             // they are what it says, and it is to look at what we wrote
	sharedReady
)

// count adds to what the session has moved, and reports whether to ask the guest now.
func (h *hostShared) count(n int) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moved += n
	if h.state != sharedNone || h.moved < sharedAfter {
		return false
	}
	h.state = sharedAsked
	return true
}

// offered looks at the pages that the guest says it has, and reports whether they are.
func (h *hostShared) offered(payload []byte) (ok bool, err error) {
	if h == nil || len(payload) != 0 && len(payload) != 8*sharedPages {
		return false, errors.New("an offer of memory that is none")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != sharedAsked || h.addresses != nil {
		return false, errors.New("an offer of memory that nobody asked for")
	}
	h.addresses = make([]uint64, len(payload)/8)
	got := make([]byte, markSize)
	for i := range h.addresses {
		a := binary.BigEndian.Uint64(payload[8*i:])
		h.addresses[i] = a
		if int64(a) < 0 || a%pageSize != 0 {
			return false, nil
		}
		if _, err := h.ram.ReadAt(got, int64(a)+offerMark); err != nil || !bytes.Equal(got, mark(h.nonce, i)) {
			return false, nil
		}
	}
	for i, a := range h.addresses {
		if _, err := h.ram.WriteAt(mark(h.nonce, i), int64(a)+acceptMark); err != nil {
			return false, nil
		}
	}
	if len(payload) > 0 {
		h.state = sharedTried
	}
	return len(payload) > 0, nil
}

// accepted is called when the guest has seen what offered wrote.
func (h *hostShared) accepted() error {
	if h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.state == sharedTried {
			h.state = sharedReady
			h.slots.offer(0)
			return nil
		}
	}
	return errors.New("memory that nobody offered is accepted")
}

// send puts p into a free slot, if there is one.
func (h *hostShared) send(p []byte) (slot, bool) {
	if h == nil || len(p) < sharedLeast {
		return slot{}, false
	}
	i, ok := h.slots.take()
	if !ok {
		return slot{}, false
	}
	if err := h.each(i, p, h.ram.WriteAt); err != nil {
		h.slots.put(i)
		return slot{}, false // the ordinary way is still there
	}
	return slot{i, uint32(len(p))}, true
}

// receive copies what the guest has put into a slot of its own.
func (h *hostShared) receive(s slot, p []byte) error {
	if h == nil {
		return errors.New("a slot without memory")
	}
	h.mu.Lock()
	ready := h.state == sharedTried || h.state == sharedReady
	h.mu.Unlock()
	if !ready {
		return errors.New("a slot without memory")
	}
	return h.each(s.index, p, h.ram.ReadAt)
}

// each calls access for each piece of slot i that lies in one piece in the guest.
func (h *hostShared) each(i uint32, p []byte, access func([]byte, int64) (int, error)) error {
	at := int(i)*slotSize + slotLead
	for len(p) > 0 {
		page, in := at/pageSize, at%pageSize
		n := pageSize - in
		for next := page + 1; n < len(p) && h.addresses[next] == h.addresses[next-1]+pageSize; next++ {
			n += pageSize
		}
		n = min(n, len(p))
		if _, err := access(p[:n], int64(h.addresses[page])+int64(in)); err != nil {
			return err
		}
		p, at = p[n:], at+n
	}
	return nil
}

// guestShared is the guest's side. The memory outlives the sessions, of which one has it.
type guestShared struct {
	allocate func() (*Pages, error) // nil: there is no memory to share

	mu    sync.Mutex
	pages *Pages
	owner *session
	nonce nonce
	ready bool            // the host has seen the pages
	inUse map[uint32]bool // slots of the host that are read, and ours that are filled
	slots sender
}

// begin gives the slots to a session, unless somebody holds one since the session before.
func (g *guestShared) begin(s *session, n nonce) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.allocate == nil || len(g.inUse) > 0 {
		return
	}
	g.owner, g.nonce, g.ready = s, n, false
	g.slots.reset()
	s.guest = g
}

// offer makes sure that there are pages, marks them, and returns their addresses,
// big-endian; nothing when there are none.
func (g *guestShared) offer() (payload []byte) {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.allocate == nil {
		return nil
	}
	if g.pages == nil {
		p, err := g.allocate()
		if err != nil || len(p.Memory) != SharedSize || len(p.Addresses) != sharedPages {
			g.allocate = nil
			return nil
		}
		g.pages = p
	}
	for i, a := range g.pages.Addresses {
		page := g.pages.Memory[i*pageSize:]
		copy(page[offerMark:], mark(g.nonce, i))
		clear(page[acceptMark : acceptMark+markSize])
		payload = binary.BigEndian.AppendUint64(payload, a)
	}
	return payload
}

// accepted looks at what the host has written to the pages and reports whether it is
// there. Then the slots can be used.
func (g *guestShared) accepted() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pages == nil || g.ready {
		return false
	}
	for i := range g.pages.Addresses {
		at := i*pageSize + acceptMark
		if !bytes.Equal(g.pages.Memory[at:at+markSize], mark(g.nonce, i)) {
			return false
		}
	}
	g.ready = true
	g.slots.offer(slotsEach)
	return true
}

// place is where the payload of slot i goes.
func (g *guestShared) place(i uint32) []byte {
	at := int(i)*slotSize + slotLead
	return g.pages.Memory[at : at+maxPayload : at+maxPayload]
}

// received returns what the host has put into a slot.
func (g *guestShared) received(s slot) ([]byte, error) {
	if g == nil {
		return nil, errors.New("a slot without memory")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ready || g.inUse[s.index] {
		return nil, errors.New("a slot that is not to be used")
	}
	g.inUse[s.index] = true
	return g.place(s.index)[:s.length], nil
}

// borrow returns the place of a free slot; nil: there is none.
func (g *guestShared) borrow(s *session) []byte {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ready || g.owner != s {
		return nil
	}
	i, ok := g.slots.take()
	if !ok {
		return nil
	}
	g.inUse[i] = true
	return g.place(i)
}

// lend says that a slot, which done has ended the use of, is used after all.
func (g *guestShared) lend(i uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inUse[i] = true
}

// done ends the use of the slot, from first on, whose place b begins at; false: at none.
func (g *guestShared) done(b []byte, first uint32) (uint32, bool) {
	if g == nil || cap(b) != maxPayload {
		return 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pages == nil {
		return 0, false
	}
	for i := first; i < first+slotsEach; i++ {
		if &g.place(i)[0] == &b[:1][0] {
			delete(g.inUse, i)
			return i, true
		}
	}
	return 0, false
}
