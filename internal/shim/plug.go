package shim

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"banger/internal/network"
	"banger/internal/vmm"
)

// plugFile is the socket to which the VMM brings the guest's frames.
const plugFile = "net.sock"

// handed is the first descriptor that is handed to a shim: the tap of a VM on a
// bridge, and then the forwards. Those before are stdio and the one that tells that
// the VM runs.
const handed = 4

// firstForward is the descriptor of the first forward.
func (n *Network) firstForward() int {
	if n.handsTap() {
		return handed + 1
	}
	return handed
}

// handsTap says that the tap is handed to the shim.
func (n *Network) handsTap() bool { return n.Address != "" && n.Tap == "" }

// insideTap says that the VMM opens a tap in namespaces of its own.
func (n *Network) insideTap() bool { return n.Address == "" && n.Tap != "" }

// plug is where the VMM's net device meets the network, until both run.
type plug struct {
	network *Network          // nil: the VM has no NIC
	ln      *net.UnixListener // of a user network
	tap     *os.File          // of a bridge
	inside  *insideTap        // of a user network whose VMM opens a tap
	blame   *blame
}

// openPlug listens for the VMM, or takes the tap, if spec has a network.
func openPlug(spec Spec, blame *blame) (*plug, error) {
	p := &plug{network: spec.Network, blame: blame}
	if p.network == nil {
		return p, nil
	}
	for fd := handed; fd < p.network.firstForward()+len(p.network.Forwards); fd++ {
		syscall.CloseOnExec(fd) // a port that the VMM held too would stay taken
	}
	switch {
	case p.network.handsTap():
		p.tap = os.NewFile(handed, "tap")
		return p, nil
	case p.network.insideTap():
		var err error
		p.inside, err = newInsideTap()
		return p, err
	case p.network.Tap != "":
		return p, nil
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(spec.Run, plugFile), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("making the network: %w", err)
	}
	p.ln = ln
	return p, nil
}

// config adds the NIC to what the VMM is told.
func (p *plug) config(c vmm.Config) vmm.Config {
	switch {
	case p.network == nil:
	case p.tap != nil:
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Tap: p.tap})
	case p.inside != nil:
		c.Namespaces, c.WrapFiles = true, []*os.File{p.inside.theirs}
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Device: p.network.Tap, MTU: network.UserMTU})
	case p.network.Tap != "":
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Device: p.network.Tap})
	default:
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Socket: p.ln.Addr().String(), MTU: network.UserMTU})
	}
	return c
}

// start takes the VMM's connection or the other side of its tap, which are there before
// the guest runs. Nothing else leads anywhere: the policy is in force before the first
// packet.
func (p *plug) start(log *slog.Logger) (*network.Stack, error) {
	link, err := p.link()
	if err != nil {
		return nil, fmt.Errorf("waiting for the VMM's net device: %w", err)
	}
	return network.NewStack(link, network.Config{
		MAC:    p.network.MAC,
		Guard:  network.NewGuard(p.network.Policy, p.blame.refuse),
		Lookup: network.NewResolver(network.ResolvConf).Exchange,
		Log:    log,
	})
}

func (p *plug) link() (network.Frames, error) {
	if p.inside != nil {
		f, err := p.inside.receive()
		if err != nil {
			return nil, err
		}
		return network.NewTap(f), nil
	}
	p.ln.SetDeadline(time.Now().Add(callTimeout))
	conn, err := p.ln.Accept()
	if err != nil {
		return nil, err
	}
	return network.NewStream(conn), nil
}

// startBridged leads to a guest that the host's kernel reaches.
func (p *plug) startBridged(log *slog.Logger) (*network.Gate, error) {
	addr, err := netip.ParseAddr(p.network.Address)
	if err != nil {
		return nil, err
	}
	return network.NewGate(addr, log), nil
}

// close takes no more connections, removes the socket, and leaves the tap to the VMM.
func (p *plug) close() {
	if p.ln != nil {
		p.ln.Close()
	}
	if p.tap != nil {
		p.tap.Close()
	}
	if p.inside != nil {
		p.inside.close()
	}
}
