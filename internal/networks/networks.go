// Package networks manages the networks of VMs: the list of networks, the address of each VM, the wanted state of the
// host's bridges, and free ports of the host for VMs. It must not know how a VM is started or stopped.
package networks

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/internal/network/bridge"
)

// bridgePool holds the subnets of networks whose creator chose none. Each has 256 addresses.
var bridgePool = netip.MustParsePrefix("172.30.0.0/16")

const bridgeBits = 24

// VMs gives access to the VMs of the networks.
type VMs interface {
	// List returns the VMs for which keep returns true.
	List(keep func(banger.VM) bool) []banger.VM
	// UID returns the user of a VM's VMM. Only this user may open the VM's tap.
	UID(id string) uint32
}

// Store stores the networks.
type Store interface {
	Networks(ctx context.Context) ([]banger.Network, error)
	CreateNetwork(ctx context.Context, n banger.Network) error
	DeleteNetwork(ctx context.Context, name string) error
}

// Options are the parts of a Networks. The caller owns them.
type Options struct {
	Store Store
	VMs   VMs
	// Bridge makes the host's bridges. It is nil if the daemon may not make any.
	Bridge *bridge.Host
	// Knock is told of VMs on bridges whose names were asked for. It wakes those that are suspended, if use may wake them,
	// and does not wait. It may be nil.
	Knock func(id string)
}

// Networks holds all networks of one daemon. Its methods may be called concurrently.
type Networks struct {
	Options

	// mu is held while networks are made or removed, VMs get addresses, or the host's bridges change. VMs are not locked
	// meanwhile, but may be read.
	mu       sync.Mutex
	adopting bool // some VMs are not known yet, so bridges stay as they are
}

// New returns a Networks with the parts o.
func New(o Options) *Networks {
	if o.Bridge != nil {
		o.Bridge.Asked = o.Knock
	}
	return &Networks{Options: o}
}

// needRoot returns an error if the daemon cannot make bridges.
func (s *Networks) needRoot(name string) error {
	if s.Bridge != nil {
		return nil
	}
	return banger.Errorf(banger.CodeDenied, "network %q is a bridge of the host, which needs a daemon of root", name).
		WithHint(
			"use --network user, which gives outbound traffic, names and every port of the VM at its own address without root")
}

// Networks returns all networks with their VMs.
func (s *Networks) Networks(ctx context.Context) ([]banger.Network, error) {
	list, err := s.Store.Networks(ctx)
	for i := range list {
		for _, vm := range s.VMs.List(func(vm banger.VM) bool { return vm.Spec.Network == list[i].Name }) {
			list[i].VMs = append(list[i].VMs, vm.Name)
		}
		slices.Sort(list[i].VMs)
	}
	return list, err
}

// Network returns the network called name with its VMs, or an error of CodeNotFound.
func (s *Networks) Network(ctx context.Context, name string) (banger.Network, error) {
	list, err := s.Networks(ctx)
	if err != nil {
		return banger.Network{}, err
	}
	i := slices.IndexFunc(list, func(n banger.Network) bool { return n.Name == name })
	if i < 0 {
		return banger.Network{}, banger.Errorf(banger.CodeNotFound, "there is no network called %q", name).
			WithHint("make it: banger network create %s", name)
	}
	return list[i], nil
}

// CreateNetwork makes a network whose VMs see each other. The host has no bridge for it while no VM runs on it. If n
// has no subnet, CreateNetwork chooses one.
func (s *Networks) CreateNetwork(ctx context.Context, n banger.Network) (banger.Network, error) {
	if err := n.Check(); err != nil {
		return n, err
	}
	if err := s.needRoot(n.Name); err != nil {
		return n, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n.Isolated, n.VMs = false, nil
	return s.add(ctx, n)
}

// add checks and stores a network; s.mu is held.
func (s *Networks) add(ctx context.Context, n banger.Network) (banger.Network, error) {
	have, err := s.Store.Networks(ctx)
	if err != nil {
		return n, err
	}
	taken, err := bridge.HostNetworks()
	if err != nil {
		return n, banger.Errorf(banger.CodeUnavailable, "cannot see which networks the host reaches: %w", err)
	}
	var c bridge.Config
	for _, o := range have {
		if o.Name == n.Name {
			return n, banger.Errorf(banger.CodeConflict, "a network called %q exists already", n.Name).
				WithHint("see: banger network ls")
		}
		c.Networks = append(c.Networks, bridgeNetwork(o))
		taken = append(taken, o.Prefix())
	}
	if n.Subnet == "" {
		free, ok := bridge.FreeSubnet(bridgePool, bridgeBits, taken)
		if !ok {
			return n, banger.Errorf(banger.CodeConflict, "no part of %s is free for network %q", bridgePool, n.Name).
				WithHint("name one: --subnet 10.200.7.0/24")
		}
		n.Subnet = free.String()
	}
	c.Networks = append(c.Networks, bridgeNetwork(n))
	if err := c.Check(taken[:len(taken)-len(have)]); err != nil {
		return n, err
	}
	n.CreatedAt = time.Now().UTC()
	return n, s.Store.CreateNetwork(ctx, n)
}

func bridgeNetwork(n banger.Network) bridge.Network {
	return bridge.Network{Name: n.Name, Subnet: n.Prefix(), Isolated: n.Isolated}
}

// RemoveNetwork deletes a network that no VM uses.
func (s *Networks) RemoveNetwork(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.Network(ctx, name)
	if err != nil {
		return err
	}
	if len(n.VMs) > 0 {
		return banger.Errorf(banger.CodeConflict, "network %s is that of VM %s", name, n.VMs[0]).
			WithHint("remove the VM, or give it another: banger network connect user %s", n.VMs[0])
	}
	return s.Store.DeleteNetwork(ctx, name)
}

// Use makes sure that the network called name exists, and runs record, which records a VM on it. The network cannot
// be removed before record returns. The network called bridge is made at its first use.
func (s *Networks) Use(ctx context.Context, name string, record func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if banger.OnBridge(name) {
		if err := s.needRoot(name); err != nil {
			return err
		}
		_, err := s.Network(ctx, name)
		if banger.CodeOf(err) == banger.CodeNotFound && name == banger.NetworkBridge {
			_, err = s.add(ctx, banger.Network{Name: name, Isolated: true})
		}
		if err != nil {
			return err
		}
	}
	return record()
}
