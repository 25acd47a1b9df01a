// Package network is what all networks of VMs have in common, as seen from outside the
// guest: the address plan, the flows of a VM and their bounds, the gate by which the host
// reaches a guest, the host's ends of forwards and their owners, and the host's resolvers.
//
// Above it are: policy, which decides what a guest may reach; nameserver, which answers
// guests' DNS questions as a policy allows; netstack, the network of a VM in user space;
// and bridge, the networks that the host's kernel makes for root.
//
// The package must not know of policies, network stacks, netlink, VMMs, images, rows or HTTP.
package network

import (
	"crypto/sha256"
	"net/netip"

	"banger"
)

// The addresses of the user network. Each VM has a stack of its own, so all have
// the same ones, which are those of QEMU's and podman's user networks.
var (
	UserSubnet  = netip.MustParsePrefix("10.0.2.0/24")
	UserGuest   = netip.MustParseAddr("10.0.2.15")
	UserGateway = netip.MustParseAddr(banger.UserGateway)
	UserDNS     = netip.MustParseAddr("10.0.2.3")
)

// UserMTU is the largest packet of the user network in bytes. No wire limits it: a
// frame with its Ethernet header still has a 16-bit length, and few large packets
// cost an emulated guest much less than many small ones.
const UserMTU = 65520

// MAC returns the guest's hardware address, made from the VM's id: locally
// administered, unicast (IEEE 802, section 8.4).
func MAC(id string) string {
	sum := sha256.Sum256([]byte("mac " + id))
	const hex = "0123456789abcdef"
	out := []byte("52:54")
	for _, b := range sum[:4] {
		out = append(out, ':', hex[b>>4], hex[b&15])
	}
	return string(out)
}
