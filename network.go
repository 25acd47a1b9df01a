package banger

import (
	"net/netip"
	"time"
)

// Values of Spec.Network that are not names of networks that a user made.
const (
	// NetworkUser is a user-space stack in the VM's shim. It needs no root and leaves nothing on the host.
	NetworkUser = "user"
	// NetworkBridge is a network of the host's kernel. It needs a daemon of root. Its VMs do not see each other.
	NetworkBridge = "bridge"
	NetworkNone   = "none" // no NIC at all
)

// UserGateway is the address at which a VM of a user network reaches this host, as far as its policy allows.
const UserGateway = "10.0.2.2"

// OnBridge reports whether a VM with this Spec.Network is on a bridge of the host: the network called bridge, or a
// named network.
func OnBridge(network string) bool { return network != NetworkUser && network != NetworkNone }

// Network is a bridge of the host with the VMs on it. The VMs of a network that a user made see each other; those of
// the network called bridge do not.
type Network struct {
	Name      string    `json:"name"`
	Subnet    string    `json:"subnet"` // CIDR; the host has the first address
	Isolated  bool      `json:"isolated,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	VMs       []string  `json:"vms,omitempty"` // names of running and stopped VMs
}

// Prefix returns the subnet. The result is not valid if the text is not a subnet.
func (n Network) Prefix() netip.Prefix {
	p, _ := netip.ParsePrefix(n.Subnet)
	return p
}

// Check checks name and subnet. An empty subnet is allowed; the daemon then chooses one.
func (n Network) Check() error {
	if err := CheckName(n.Name); err != nil {
		return err
	}
	if n.Name == NetworkUser || n.Name == NetworkBridge || n.Name == NetworkNone || n.Name == "banger" {
		return Errorf(CodeInvalid, "%q cannot name a network, because it means something already", n.Name).
			WithHint("choose another")
	}
	if _, err := netip.ParsePrefix(n.Subnet); err != nil && n.Subnet != "" {
		return Errorf(CodeInvalid, "%q is not a subnet", n.Subnet).WithHint("for example: --subnet 172.30.7.0/24")
	}
	return nil
}
