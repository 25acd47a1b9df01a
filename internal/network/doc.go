// Package network is a VM's network as seen from outside the guest: the address
// plan, and a user-space TCP/IP stack that answers the guest's frames and opens
// sockets of the host in its place. Every packet of the guest is hostile: flows
// and memory are bounded, a frame that is not the guest's own is dropped, and what
// the guest may reach is decided here, before a socket exists.
//
// For root there is the bridge mode (Bridge): the same policies in the kernel.
//
// The stack is gVisor's netstack; nothing outside this package sees its types. The
// package must not know of VMMs, images, rows or HTTP.
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
