package shim

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"banger/internal/network"
	"banger/internal/vmm"
)

// plugFile is the socket to which the VMM brings the guest's frames.
const plugFile = "net.sock"

// firstForward is the descriptor of a shim's first forward; those before are stdio
// and the one that tells that the VM runs.
const firstForward = 4

// plug is where the VMM's net device meets the user network, until both run.
type plug struct {
	network *Network // nil: the VM has no NIC
	ln      *net.UnixListener
	denials *denials
}

// openPlug listens for the VMM, if spec has a network.
func openPlug(spec Spec, denials *denials) (*plug, error) {
	if spec.Network == nil {
		return &plug{}, nil
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(spec.Run, plugFile), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("making the network: %w", err)
	}
	return &plug{spec.Network, ln, denials}, nil
}

// config adds the NIC to what the VMM is told.
func (p *plug) config(c vmm.Config) vmm.Config {
	if p.network != nil {
		c.NICs = append(slices.Clone(c.NICs), vmm.NIC{MAC: p.network.MAC, Socket: p.ln.Addr().String(), MTU: network.UserMTU})
	}
	return c
}

// start takes the VMM's connection, which it makes before it runs the guest: the
// policy is in force before the first packet.
func (p *plug) start(log *slog.Logger) (*network.Stack, error) {
	if p.network == nil {
		return nil, nil
	}
	p.ln.SetDeadline(time.Now().Add(callTimeout))
	conn, err := p.ln.Accept()
	if err != nil {
		return nil, fmt.Errorf("waiting for the VMM's net device: %w", err)
	}
	return network.NewStack(network.NewStream(conn), network.Config{
		MAC:    p.network.MAC,
		Guard:  network.NewGuard(p.network.Policy, p.denials.add),
		Lookup: network.NewResolver(network.ResolvConf).Exchange,
		Log:    log,
	})
}

// close takes no more connections and removes the socket.
func (p *plug) close() {
	if p.ln != nil {
		p.ln.Close()
	}
}
