// Package netstack is the user network of one VM: a TCP/IP stack in user space that answers the
// guest's frames and opens sockets of the host in its place. Every packet of the guest is hostile:
// flows and memory are bounded, a frame that is not the guest's own is dropped, and the policy
// decides before a socket exists.
//
// The stack is gVisor's; nothing outside of this package sees its types. The package must not
// know of VMMs, images, rows or HTTP.
package netstack

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"banger"
	"banger/internal/network"
	"banger/internal/network/nameserver"
	"banger/internal/network/policy"
)

// Bounds of connections that the guest begins.
const (
	maxConnecting = 256 // connections that wait for a host to answer
	dialTimeout   = 30 * time.Second
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
	MAC    string        // of the guest
	Policy banger.Policy // what the guest may reach; it is valid
	// Decided gets what the policy allows and refuses; may be nil. It does not wait, except for a refusal by TCP.
	Decided func(banger.Decision)
	Lookup  network.Exchange // answers DNS
	Log     *slog.Logger
}

// Stack is the user network of one VM. Its Gate leads to the guest.
type Stack struct {
	*network.Gate
	guard  *policy.Guard
	flows  network.Flows
	frames Frames
	link   *link
	net    *stack.Stack
	mac    tcpip.LinkAddress // of the guest
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New starts a stack on frames, which it owns. Close ends it.
func New(frames Frames, c Config) (*Stack, error) {
	mac, err := net.ParseMAC(c.MAC)
	if err != nil {
		return nil, fmt.Errorf("the guest's hardware address: %w", err)
	}
	s := &Stack{guard: policy.NewGuard(c.Policy, c.Decided), frames: frames, mac: tcpip.LinkAddress(mac), log: c.Log}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.Gate = network.NewGate(s.ctx, guestSide{s}, &s.flows, c.Log)
	s.link = &link{
		frames:  frames,
		mtu:     network.UserMTU,
		host:    "\x52\x55\x0a\x00\x02\x02",
		guest:   s.mac,
		guestIP: network.UserGuest.As4(),
		done:    make(chan struct{}),
	}
	if err := s.build(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.serveDNS(c.Lookup); err != nil {
		s.Close()
		return nil, err
	}
	s.wg.Go(s.link.run)
	s.wg.Go(func() { s.flows.Expire(s.ctx, s.guard.Forget) })
	return s, nil
}

// build makes the stack: one link, our two addresses, and handlers that take what
// goes anywhere else.
func (s *Stack) build() error {
	s.net = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	control, wait := tcpip.CongestionControlOption("cubic"), tcpip.TCPTimeWaitTimeoutOption(5*time.Second)
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
	for _, a := range []netip.Addr{network.UserGateway, network.UserDNS} {
		addr := tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(a), PrefixLen: network.UserSubnet.Bits()},
		}
		if err := s.net.AddProtocolAddress(nic, addr, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("adding address %s: %s", a, err)
		}
	}
	s.net.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	if err := s.net.AddStaticNeighbor(nic, ipv4.ProtocolNumber, address(network.UserGuest), s.mac); err != nil {
		return fmt.Errorf("adding the guest as a neighbour: %s", err)
	}
	s.net.SetPromiscuousMode(nic, true) // the guest's packets are for the whole world
	s.net.SetSpoofing(nic, true)        // and we answer in its name
	forwarder := tcp.NewForwarder(s.net, 0, maxConnecting, s.connect)
	s.net.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
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
	s.flows.CloseAll()
	if s.net != nil {
		s.net.Close()
	}
	s.wg.Wait()
	s.Gate.Close()
	if s.net != nil {
		s.net.RemoveNIC(nic)
		s.net.Wait()
	}
	return err
}

// SetPolicy replaces the policy and cuts the flows that it forbids.
func (s *Stack) SetPolicy(p banger.Policy) {
	s.guard.Set(p)
	s.flows.CloseIf(func(f *network.Flow) bool { return !s.guard.StillAllows(f) })
}

// AllowOnce lets a rule, which is valid, count in front of the policy until a time. The flows that it has allowed go on
// after that.
func (s *Stack) AllowOnce(r banger.Rule, until time.Time) error { return s.guard.AllowOnce(r, until) }

// register adds a flow that the policy admitted a moment ago, and reports whether it may
// begin. SetPolicy sees only flows that are registered, so the policy is asked once
// more after that.
func (s *Stack) register(f *network.Flow) bool {
	if !s.flows.Add(f) {
		return false
	}
	if !s.guard.StillAllows(f) {
		s.flows.Remove(f)
		return false
	}
	return true
}

// serveDNS listens on the resolver's address inside the stack, and on the gateway's
// for guests that expect it there.
func (s *Stack) serveDNS(lookup network.Exchange) error {
	guest := &nameserver.Guest{Guard: s.guard, Lookup: lookup, Log: s.log, Gateway: network.UserGateway}
	guest.Learn = func(_ context.Context, chain []string, addr netip.Addr, ttl time.Duration) error {
		for _, name := range chain {
			s.guard.Learn(addr, name, ttl, time.Now())
		}
		return nil
	}
	server := nameserver.New(s.ctx, &s.wg, func(netip.Addr) *nameserver.Guest { return guest })
	for _, a := range []netip.Addr{network.UserDNS, network.UserGateway} {
		at := tcpip.FullAddress{NIC: nic, Addr: address(a), Port: 53}
		pc, err := gonet.DialUDP(s.net, &at, nil, protocolIPv4)
		if err != nil {
			return fmt.Errorf("listening for DNS: %w", err)
		}
		ln, err := gonet.ListenTCP(s.net, at, protocolIPv4)
		if err != nil {
			pc.Close()
			return fmt.Errorf("listening for DNS: %w", err)
		}
		server.Serve(pc, ln)
	}
	return nil
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}
