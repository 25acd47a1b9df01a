package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"banger/internal/network"
	"banger/internal/network/netstack"
	"banger/internal/shim"
	"banger/internal/shim/decision"
	"banger/internal/shim/inlet"
	"banger/internal/vmm"
)

// firstForward returns the descriptor of the first forward.
func (s plan) firstForward() int {
	if s.Network.Attachment() == shim.AttachHanded {
		return s.firstSocket() + 1
	}
	return s.firstSocket()
}

// nic connects the VMM's net device with the network, until both run.
type nic struct {
	network     *shim.Network // nil: the VM has no NIC
	stream      *socketPair   // for a user network
	tap         *os.File      // for a bridge
	inside      *insideTap    // for a user network whose VMM opens a tap
	attribution *decision.Attribution
}

// openNIC makes the descriptors for the VMM, if spec has a network.
func openNIC(spec plan, attribution *decision.Attribution) (*nic, error) {
	p := &nic{network: spec.Network, attribution: attribution}
	if p.network == nil {
		return p, nil
	}
	var err error
	switch p.network.Attachment() {
	case shim.AttachStream:
		p.stream, err = newSocketPair()
	case shim.AttachPrivate:
		p.inside, err = newInsideTap()
	case shim.AttachHanded:
		p.tap = os.NewFile(uintptr(spec.firstSocket()), "tap")
	}
	if err != nil {
		return nil, fmt.Errorf("making the network: %w", err)
	}
	return p, nil
}

// config returns c with the NIC.
func (p *nic) config(c vmm.Config) vmm.Config {
	if p.network == nil {
		return c
	}
	nic := vmm.NIC{MAC: p.network.MAC}
	switch p.network.Attachment() {
	case shim.AttachStream:
		nic.Socket, nic.MTU = p.stream.theirs, network.UserMTU
	case shim.AttachPrivate:
		c.Namespaces, c.WrapFiles = true, append(slices.Clone(c.WrapFiles), p.inside.theirs)
		nic.Device, nic.MTU = p.network.Tap, network.UserMTU
	case shim.AttachHanded:
		nic.Tap = p.tap
	case shim.AttachNamed:
		nic.Device = p.network.Tap
	}
	c.NICs = append(slices.Clone(c.NICs), nic)
	return c
}

// start takes our end of the VMM's connection, or the other side of its tap. Both exist before the guest runs. The
// guest has no other connection, so the policy is in force before the first packet.
func (p *nic) start(log *slog.Logger) (*netstack.Stack, error) {
	link, err := p.link()
	if err != nil {
		return nil, fmt.Errorf("waiting for the VMM's net device: %w", err)
	}
	return netstack.New(link, netstack.Config{
		MAC:     p.network.MAC,
		Policy:  p.network.Policy,
		Decided: p.attribution.Decide,
		Lookup:  network.NewResolver(network.ResolvConf).Exchange,
		Log:     log,
	})
}

func (p *nic) link() (netstack.Frames, error) {
	if p.inside != nil {
		f, err := p.inside.receive()
		if err != nil {
			return nil, err
		}
		return netstack.NewTap(f), nil
	}
	conn, err := net.FileConn(p.stream.ours)
	if err != nil {
		return nil, err
	}
	return netstack.NewStream(conn), nil
}

// startBridged returns a Gate to a guest that the host's kernel reaches.
func (p *nic) startBridged(log *slog.Logger) (*network.Gate, error) {
	addr, err := netip.ParseAddr(p.network.Address)
	if err != nil {
		return nil, err
	}
	return network.NewDirectGate(addr, log), nil
}

// close closes our copies of what the VMM was handed.
func (p *nic) close() {
	if p.stream != nil {
		p.stream.close()
	}
	if p.tap != nil {
		p.tap.Close()
	}
	if p.inside != nil {
		p.inside.close()
	}
}

func (s *server) startNetwork(nic *nic, spec plan) (err error) {
	n := spec.Network
	if n == nil {
		return nil
	}
	if n.Address != "" {
		s.gate, err = nic.startBridged(s.log)
	} else if s.stack, err = nic.start(s.log); err == nil {
		s.gate = s.stack.Gate
	}
	if err != nil {
		return err
	}
	s.access = inlet.New(n, s.gate, s.agent())
	if spec.VM.Restore != "" && !spec.VM.Shared {
		if err := s.access.Hold(); err != nil { // until the guest has its network again
			return err
		}
	}
	if err := s.access.AddAll(spec.firstForward(), n.Forwards); err != nil {
		return err
	}
	return s.access.TakeOwn(spec.firstForward()+len(n.Forwards), n.Own)
}

func (s *server) closeNetwork() {
	switch {
	case s.stack != nil:
		s.stack.Close()
	case s.gate != nil:
		s.gate.Close()
	}
	s.attribution.Close()
}
