package shim

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"banger/internal/network"
	"banger/internal/network/netstack"
	"banger/internal/vmm"
)

// firstForward is the descriptor of the first forward.
func (s Spec) firstForward() int {
	if s.Network.handsTap() {
		return s.firstSocket() + 1
	}
	return s.firstSocket()
}

// handsTap says that the tap is handed to the shim.
func (n *Network) handsTap() bool { return n.Address != "" && n.Tap == "" }

// insideTap says that the VMM opens a tap in namespaces of its own.
func (n *Network) insideTap() bool { return n.Address == "" && n.Tap != "" }

// plug is where the VMM's net device meets the network, until both run.
type plug struct {
	network *Network    // nil: the VM has no NIC
	stream  *socketPair // of a user network
	tap     *os.File    // of a bridge
	inside  *insideTap  // of a user network whose VMM opens a tap
	blame   *blame
}

// openPlug makes what the VMM is handed, if spec has a network.
func openPlug(spec Spec, blame *blame) (*plug, error) {
	p := &plug{network: spec.Network, blame: blame}
	if p.network == nil {
		return p, nil
	}
	switch {
	case p.network.handsTap():
		p.tap = os.NewFile(uintptr(spec.firstSocket()), "tap")
		return p, nil
	case p.network.insideTap():
		var err error
		p.inside, err = newInsideTap()
		return p, err
	case p.network.Tap != "":
		return p, nil
	}
	var err error
	if p.stream, err = newSocketPair(); err != nil {
		return nil, fmt.Errorf("making the network: %w", err)
	}
	return p, nil
}

// config adds the NIC to what the VMM is told.
func (p *plug) config(c vmm.Config) vmm.Config {
	switch {
	case p.network == nil:
	case p.tap != nil:
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Tap: p.tap})
	case p.inside != nil:
		c.Namespaces, c.WrapFiles = true, append(slices.Clone(c.WrapFiles), p.inside.theirs)
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Device: p.network.Tap, MTU: network.UserMTU})
	case p.network.Tap != "":
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Device: p.network.Tap})
	default:
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Socket: p.stream.theirs, MTU: network.UserMTU})
	}
	return c
}

// start takes our end of the VMM's connection or the other side of its tap, which are there
// before the guest runs. Nothing else leads anywhere: the policy is in force before the first
// packet.
func (p *plug) start(log *slog.Logger) (*netstack.Stack, error) {
	link, err := p.link()
	if err != nil {
		return nil, fmt.Errorf("waiting for the VMM's net device: %w", err)
	}
	return netstack.New(link, netstack.Config{
		MAC:    p.network.MAC,
		Policy: p.network.Policy,
		Denied: p.blame.refuse,
		Lookup: network.NewResolver(network.ResolvConf).Exchange,
		Log:    log,
	})
}

func (p *plug) link() (netstack.Frames, error) {
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

// startBridged leads to a guest that the host's kernel reaches.
func (p *plug) startBridged(log *slog.Logger) (*network.Gate, error) {
	addr, err := netip.ParseAddr(p.network.Address)
	if err != nil {
		return nil, err
	}
	return network.NewDirectGate(addr, log), nil
}

// close leaves to the VMM what it was handed.
func (p *plug) close() {
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
