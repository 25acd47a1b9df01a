package bridge

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/netip"
	"slices"

	"banger/internal/ipaddr"
	"banger/internal/network"
	"banger/internal/network/policy"

	"banger"
)

// Config is all of the bridge mode's state in one network namespace.
type Config struct {
	Networks []Network
	Ports    []Port
}

// Network is one bridge. The host has the first address of its subnet.
type Network struct {
	Name     string
	Subnet   netip.Prefix
	Isolated bool // VMs do not reach each other
}

// Port is where one VM is connected.
type Port struct {
	ID      string // of the VM
	Name    string `json:"-"` // of the VM, by which its network knows it; "": none
	Network string // a network's name
	Address netip.Addr
	MAC     string
	UID     uint32 // user who may open the tap
	Policy  banger.Policy
}

// What the names of our links begin with. All links with these names are ours.
const (
	bridgePrefix = "bgr"
	tapPrefix    = "bgt"
)

// Link returns the name of the network's bridge.
func (n Network) Link() string { return bridgePrefix + hash("network " + n.Name)[:12] }

// Gateway returns the host's address in the network, where guests find their DNS.
func (n Network) Gateway() netip.Addr { return n.Subnet.Addr().Next() }

// mac returns the fixed MAC address of the bridge. Without it, the address would depend on the
// ports.
func (n Network) mac() net.HardwareAddr {
	mac, _ := net.ParseMAC(network.MAC("network " + n.Name)) // made by us
	return mac
}

// Tap returns the name of the port's tap.
func (p Port) Tap() string { return tapPrefix + p.ID }

func (p Port) mac() net.HardwareAddr {
	mac, _ := net.ParseMAC(p.MAC) // checked
	return mac
}

// alias is stored at the tap, and shows the next daemon which policy is in force.
func (p Port) alias() string {
	text, _ := json.Marshal(p) // of strings and numbers
	return "banger " + hash(string(text))
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// maxCells limits the kernel memory for one VM's policy.
const maxCells = 2048

// Check returns an error of CodeInvalid or CodeConflict for a configuration that
// cannot be in force. Taken are the networks that the host reaches by links that
// are not ours.
func (c Config) Check(taken []netip.Prefix) error {
	networks, links := map[string]Network{}, map[string]string{}
	for i, n := range c.Networks {
		if err := n.check(); err != nil {
			return err
		}
		if other, ok := links[n.Link()]; ok {
			return banger.Errorf(banger.CodeConflict, "network %q has the name or the link of %q", n.Name, other).
				WithHint("choose another name")
		}
		networks[n.Name], links[n.Link()] = n, n.Name
		for _, other := range c.Networks[:i] {
			if other.Subnet.Overlaps(n.Subnet) {
				return banger.Errorf(banger.CodeConflict, "%s of network %q overlaps %s of network %q",
					n.Subnet, n.Name, other.Subnet, other.Name).
					WithHint("choose another subnet")
			}
		}
		for _, other := range taken {
			if other.Bits() > 0 && other.Overlaps(n.Subnet) {
				return banger.Errorf(banger.CodeConflict, "%s of network %q overlaps %s, which the host reaches already",
					n.Subnet, n.Name, other).
					WithHint("choose another subnet")
			}
		}
	}
	return c.checkPorts(networks)
}

func (n Network) check() error {
	if banger.CheckName(n.Name) != nil {
		return banger.Errorf(banger.CodeInvalid, "%q is not a valid network name", n.Name).
			WithHint("use 1 to 63 lower-case letters, digits and inner hyphens")
	}
	if !n.Subnet.IsValid() || !n.Subnet.Addr().Is4() || n.Subnet.Masked() != n.Subnet || n.Subnet.Bits() > 30 {
		return banger.Errorf(banger.CodeInvalid, "%s of network %q is not an IPv4 network with room for a VM", n.Subnet,
			n.Name).
			WithHint("for example: 172.30.0.0/24")
	}
	if !slices.ContainsFunc(ipaddr.Prefixes(ipaddr.Private), func(p netip.Prefix) bool {
		return p.Bits() <= n.Subnet.Bits() && p.Contains(n.Subnet.Addr())
	}) {
		return banger.Errorf(banger.CodeInvalid,
			"%s of network %q is not private, so that it would hide part of the Internet", n.Subnet, n.Name).
			WithHint("use a part of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10")
	}
	return nil
}

func (c Config) checkPorts(networks map[string]Network) error {
	seen := map[string]string{}
	for _, n := range c.Networks {
		seen[n.mac().String()] = "network " + n.Name
	}
	for _, p := range c.Ports {
		n, ok := networks[p.Network]
		mac, err := net.ParseMAC(p.MAC)
		switch {
		case !banger.ValidID(p.ID):
			return banger.Errorf(banger.CodeInvalid, "%q is not the id of a VM", p.ID)
		case !ok:
			return banger.Errorf(banger.CodeInvalid, "VM %s is in network %q, which does not exist", p.ID, p.Network).
				WithHint("declare the network first")
		case !n.Subnet.Contains(p.Address) || p.Address == n.Subnet.Addr() || p.Address == n.Gateway(),
			!n.Subnet.Contains(p.Address.Next()): // the last one is for broadcasts
			return banger.Errorf(banger.CodeInvalid, "%s of VM %s is not an address for VMs of %s", p.Address, p.ID, n.Subnet).
				WithHint("take one after %s", n.Gateway())
		case err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00":
			return banger.Errorf(banger.CodeInvalid, "%q of VM %s is not a hardware address", p.MAC, p.ID)
		}
		for _, key := range []string{p.ID, p.Address.String(), mac.String()} {
			if other, taken := seen[key]; taken {
				return banger.Errorf(banger.CodeConflict, "VM %s has %s, which %s has", p.ID, key, other).
					WithHint("each VM needs an id, address and hardware address of its own")
			}
			seen[key] = "VM " + p.ID
		}
		if err := p.Policy.Check(); err != nil {
			return err
		}
		if cells := c.cells(p); len(cells) > maxCells {
			return banger.Errorf(banger.CodeInvalid, "the policy of VM %s takes %d cells of the kernel's table, but may take %d",
				p.ID, len(cells), maxCells).
				WithHint("use fewer addresses and ranges of ports")
		}
	}
	return nil
}

// sorted returns c with networks and ports in order, so that equal ones look equal.
func (c Config) sorted() Config {
	c.Networks, c.Ports = slices.Clone(c.Networks), slices.Clone(c.Ports)
	slices.SortFunc(c.Networks, func(a, b Network) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Ports, func(a, b Port) int { return cmp.Compare(a.ID, b.ID) })
	return c
}

func (c Config) network(name string) Network {
	for _, n := range c.Networks {
		if n.Name == name {
			return n
		}
	}
	return Network{}
}

// closed reports whether no rule opens addr, because it belongs to a network of VMs.
func (c Config) closed(addr netip.Addr) bool {
	return slices.ContainsFunc(c.Networks, func(n Network) bool { return n.Subnet.Contains(addr) })
}

// cells returns what the kernel's table allows a VM without regard to names: what its policy
// allows beside our networks, its gateway, and its own network unless that is isolated.
func (c Config) cells(p Port) []policy.Cell {
	var closed []netip.Prefix
	for _, n := range c.Networks {
		closed = append(closed, n.Subnet)
	}
	n := c.network(p.Network)
	cells := append(policy.Compile(p.Policy, closed), policy.CompileGateway(p.Policy, n.Gateway())...)
	if !n.Isolated {
		cells = append(cells, policy.CompileSubnet(n.Subnet)...)
	}
	return cells
}
