package banger

import (
	"net/netip"
	"time"
)

// Values of Spec.Network that are no names of networks that somebody made.
const (
	NetworkUser   = "user"   // user-space stack in the VM's shim: no root, nothing of it on the host
	NetworkBridge = "bridge" // the kernel's own; needs a daemon of root; its VMs do not see each other
	NetworkNone   = "none"   // no NIC at all
)

// UserGateway is where a VM of a user network finds this host, as far as its policy
// lets it.
const UserGateway = "10.0.2.2"

// OnBridge says whether a VM with this Spec.Network is on a bridge of the host: the
// one called bridge, or a named network.
func OnBridge(network string) bool { return network != NetworkUser && network != NetworkNone }

// Network is a bridge of the host with the VMs on it. VMs of one network that
// somebody made see each other; those of the network called bridge do not.
type Network struct {
	Name      string    `json:"name"`
	Subnet    string    `json:"subnet"` // CIDR; the host has its first address
	Isolated  bool      `json:"isolated,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	VMs       []string  `json:"vms,omitempty"` // names, running or not
}

// Prefix returns the subnet, which is not valid when the text is none.
func (n Network) Prefix() netip.Prefix {
	p, _ := netip.ParsePrefix(n.Subnet)
	return p
}

// Check looks at name and subnet; an empty subnet is left to the daemon.
func (n Network) Check() error {
	if err := CheckName(n.Name); err != nil {
		return err
	}
	if n.Name == NetworkUser || n.Name == NetworkBridge || n.Name == NetworkNone || n.Name == "banger" {
		return Errorf(CodeInvalid, "%q is no name for a network: it means something already", n.Name).WithHint("choose another")
	}
	if _, err := netip.ParsePrefix(n.Subnet); err != nil && n.Subnet != "" {
		return Errorf(CodeInvalid, "%q is no subnet", n.Subnet).WithHint("for example: --subnet 172.30.7.0/24")
	}
	return nil
}
