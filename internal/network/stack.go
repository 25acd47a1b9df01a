package network

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"banger"
)

// Bounds of one VM's flows. A guest at a bound gets its new flow refused; its old
// ones and other VMs go on.
const (
	maxTCPFlows   = 2048
	maxUDPFlows   = 1024
	maxEchoFlows  = 64
	maxConnecting = 256 // connections that wait for a host to answer
	dialTimeout   = 30 * time.Second
	udpIdle       = 120 * time.Second // RFC 4787, REQ-5: at least two minutes
	echoIdle      = 15 * time.Second
)

// Buffers of one TCP flow in bytes, and how many flows may have the large ones: with
// all of them filled a guest holds 230 MiB of its shim.
const (
	largeBuffer = 1 << 20
	smallBuffer = 32 << 10
	largeFlows  = 48
)

const nic tcpip.NICID = 1

// Config describes one VM's user network.
type Config struct {
	MAC    string   // of the guest
	Guard  *Guard   // decides what the guest may reach
	Lookup Exchange // answers DNS
	Log    *slog.Logger
}

// Stack is the user network of one VM. Its Gate leads to the guest.
type Stack struct {
	*Gate
	guard  *Guard
	frames Frames
	link   *link
	net    *stack.Stack
	mac    tcpip.LinkAddress // of the guest
}

// NewStack starts a stack on frames, which it owns. Close ends it.
func NewStack(frames Frames, c Config) (*Stack, error) {
	mac, err := net.ParseMAC(c.MAC)
	if err != nil {
		return nil, fmt.Errorf("the guest's hardware address: %w", err)
	}
	s := &Stack{guard: c.Guard, frames: frames, mac: tcpip.LinkAddress(mac)}
	s.Gate = newGate(s, c.Log)
	s.link = &link{frames: frames, mtu: UserMTU, host: "\x52\x55\x0a\x00\x02\x02", guest: s.mac, guestIP: UserGuest.As4(), done: make(chan struct{})}
	if err := s.build(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.serveDNS(c.Lookup); err != nil {
		s.Close()
		return nil, err
	}
	s.wg.Go(s.link.run)
	s.wg.Go(func() { s.expire(s.guard.forget) })
	return s, nil
}

// build makes the stack: one link, our two addresses, and handlers that take what
// goes anywhere else.
func (s *Stack) build() error {
	s.net = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	sack, moderate, control, wait := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true), tcpip.CongestionControlOption("cubic"), tcpip.TCPTimeWaitTimeoutOption(5*time.Second)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: largeBuffer / 4, Max: largeBuffer}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: largeBuffer / 4, Max: largeBuffer}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &control, &wait, &receive, &send} {
		if err := s.net.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("setting a TCP option: %s", err)
		}
	}
	if err := s.net.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("making the link: %s", err)
	}
	for _, a := range []netip.Addr{UserGateway, UserDNS} {
		addr := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(a), PrefixLen: UserSubnet.Bits()}}
		if err := s.net.AddProtocolAddress(nic, addr, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("adding address %s: %s", a, err)
		}
	}
	s.net.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	if err := s.net.AddStaticNeighbor(nic, ipv4.ProtocolNumber, address(UserGuest), s.mac); err != nil {
		return fmt.Errorf("adding the guest as a neighbour: %s", err)
	}
	s.net.SetPromiscuousMode(nic, true) // the guest's packets are for the whole world
	s.net.SetSpoofing(nic, true)        // and we answer in its name
	s.net.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s.net, 0, maxConnecting, s.connect).HandlePacket)
	s.net.SetTransportProtocolHandler(udp.ProtocolNumber, s.datagram)
	s.net.SetTransportProtocolHandler(icmp.ProtocolNumber4, s.echo)
	return nil
}

// Traffic returns how many bytes of frames went to the guest, and came from it.
func (s *Stack) Traffic() (in, out uint64) { return s.link.in.Load(), s.link.out.Load() }

// Done is closed when the guest's end of the link is gone.
func (s *Stack) Done() <-chan struct{} { return s.link.done }

// Close ends every flow and the link, and returns when all is over.
func (s *Stack) Close() error {
	s.cancel()
	err := s.frames.Close()
	s.flows.closeAll()
	if s.net != nil {
		s.net.Close()
	}
	s.wg.Wait()
	if s.net != nil {
		s.net.RemoveNIC(nic)
		s.net.Wait()
	}
	return err
}

// SetPolicy replaces the policy and cuts the flows that it forbids.
func (s *Stack) SetPolicy(p banger.Policy) {
	s.guard.set(p)
	s.flows.closeIf(func(f *flow) bool { return !s.guard.stillAllows(f) })
}

// register adds a flow that the policy admitted a moment ago, and reports whether it may
// begin. SetPolicy sees only flows that are registered, so the policy is asked once
// more after that.
func (s *Stack) register(f *flow) bool {
	if !s.flows.add(f) {
		return false
	}
	if !s.guard.stillAllows(f) {
		s.flows.remove(f)
		return false
	}
	return true
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}
