package netstack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Frames carries Ethernet frames without their check sequence.
type Frames interface {
	// Next reads the next frame into the buffer that buf returns for its size, and
	// returns the size.
	Next(buf func(size int) []byte) (int, error)
	// Put writes one frame that consists of several pieces.
	Put(pieces [][]byte) error
	io.Closer
}

const (
	ethernetHeader = header.EthernetMinimumSize
	maxFrame       = ethernetHeader + 65535
)

// stream is Frames over a byte stream, each behind its length in 4 bytes, big
// endian: what QEMU's stream and socket net devices speak (qemu net/stream.c).
type stream struct {
	conn net.Conn
	r    *bufio.Reader

	mu  sync.Mutex // one frame at a time
	out net.Buffers
	hdr [4]byte
}

// NewStream returns the frames of conn, which it owns.
func NewStream(conn net.Conn) Frames {
	return &stream{conn: conn, r: bufio.NewReaderSize(conn, 128<<10)}
}

func (s *stream) Next(buf func(int) []byte) (int, error) {
	for {
		var hdr [4]byte
		if _, err := io.ReadFull(s.r, hdr[:]); err != nil {
			return 0, err
		}
		n := int(binary.BigEndian.Uint32(hdr[:]))
		if n > maxFrame {
			return 0, io.ErrShortBuffer // no frame: the peer has lost its place
		}
		if n < ethernetHeader {
			if _, err := s.r.Discard(n); err != nil {
				return 0, err
			}
			continue
		}
		_, err := io.ReadFull(s.r, buf(n))
		return n, err
	}
}

func (s *stream) Put(pieces [][]byte) error {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	binary.BigEndian.PutUint32(s.hdr[:], uint32(size))
	s.out = append(append(s.out[:0], s.hdr[:]), pieces...)
	out := s.out // WriteTo consumes its receiver
	_, err := out.WriteTo(s.conn)
	return err
}

func (s *stream) Close() error { return s.conn.Close() }

// tapFrames is Frames over a tap device.
type tapFrames struct {
	f   io.ReadWriteCloser
	mu  sync.Mutex
	in  []byte
	out []byte
}

// NewTap returns the frames of a tap device (IFF_TAP | IFF_NO_PI), or of the socket of
// MakeTap, which may live in another network namespace: only its descriptor matters.
// It owns f, which must be non-blocking so that Close ends a read.
func NewTap(f io.ReadWriteCloser) Frames {
	return &tapFrames{f: f, in: make([]byte, maxFrame), out: make([]byte, maxFrame)}
}

func (t *tapFrames) Next(buf func(int) []byte) (int, error) {
	for {
		n, err := t.f.Read(t.in)
		if err != nil {
			return 0, err
		}
		if n >= ethernetHeader {
			return copy(buf(n), t.in[:n]), nil
		}
	}
}

func (t *tapFrames) Put(pieces [][]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, p := range pieces {
		n += copy(t.out[n:], p)
	}
	_, err := t.f.Write(t.out[:n])
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENETDOWN) {
		return nil // lost, as on a full link
	}
	return err
}

func (t *tapFrames) Close() error { return t.f.Close() }

// link is the stack's only link: it takes the frames that the one guest may send
// and drops all others.
type link struct {
	frames     Frames
	mtu        uint32
	host       tcpip.LinkAddress
	guest      tcpip.LinkAddress
	guestIP    [4]byte
	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
	in, out    atomic.Uint64 // bytes of frames to the guest, and from it
	done       chan struct{} // closed when no frame comes any more
}

func (l *link) MTU() uint32                             { return l.mtu }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return ethernetHeader }
func (l *link) LinkAddress() tcpip.LinkAddress          { return l.host }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// Capabilities: frames do not get damaged between two processes of one host.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload | stack.CapabilityResolutionRequired
}

func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

func (l *link) IsAttached() bool { return l.attached() != nil }

func (l *link) attached() stack.NetworkDispatcher {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher
}

func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	eth := header.Ethernet(pkt.LinkHeader().Push(ethernetHeader))
	eth.Encode(&header.EthernetFields{
		SrcAddr: l.host,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(ethernetHeader)
	return ok
}

// WritePackets sends packets in order. If the guest does not take them, it waits.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		l.in.Add(uint64(pkt.Size()))
		if err := l.frames.Put(pkt.AsSlices()); err != nil {
			return i, &tcpip.ErrClosedForSend{}
		}
	}
	return pkts.Len(), nil
}

// run delivers the guest's frames until there are no more.
func (l *link) run() {
	defer close(l.done)
	for {
		var view *buffer.View
		n, err := l.frames.Next(func(size int) []byte {
			view = buffer.NewViewSize(size)
			return view.AsSlice()
		})
		if err != nil {
			if view != nil {
				view.Release()
			}
			return
		}
		l.out.Add(uint64(n))
		d := l.attached()
		proto, ok := l.admit(view.AsSlice()[:n])
		if !ok || d == nil {
			view.Release()
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
		if l.ParseHeader(pkt) {
			pkt.PktType = tcpip.PacketHost
			d.DeliverNetworkPacket(proto, pkt)
		}
		pkt.DecRef()
	}
}

// admit reports whether a frame is one that the guest may send: from its own hardware
// and network address, and of a protocol that we speak.
func (l *link) admit(frame []byte) (tcpip.NetworkProtocolNumber, bool) {
	eth := header.Ethernet(frame)
	if eth.SourceAddress() != l.guest {
		return 0, false
	}
	payload := frame[ethernetHeader:]
	switch eth.Type() {
	case header.ARPProtocolNumber:
		arp := header.ARP(payload)
		return eth.Type(), len(payload) >= header.ARPSize && arp.IsValid() &&
			[4]byte(arp.ProtocolAddressSender()) == l.guestIP && tcpip.LinkAddress(arp.HardwareAddressSender()) == l.guest
	case header.IPv4ProtocolNumber:
		return eth.Type(), len(payload) >= header.IPv4MinimumSize && [4]byte(payload[12:16]) == l.guestIP
	}
	return 0, false
}
