// Package ipaddr classifies addresses. It holds the only list of special addresses, which the guests' networks and
// the registries' client share.
//
// It knows nothing of policies, guests or registries. They decide what a kind means.
package ipaddr

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kind is a group of addresses that are treated alike. The zero value stands for the addresses of the Internet.
type Kind string

// The kinds. The addresses of this host may have any kind; Route identifies them.
const (
	Loopback  Kind = "loopback"
	LinkLocal Kind = "link-local" // clouds offer their metadata there
	Metadata  Kind = "metadata"   // metadata services at other addresses
	Private   Kind = "private"    // local networks
	Reserved  Kind = "reserved"   // not for the Internet (RFC 6890)
	Multicast Kind = "multicast"
	Nowhere   Kind = "unspecified" // not a destination: 0.0.0.0/8, 240.0.0.0/4, ::
)

// block is one line of the list.
type block struct {
	prefix netip.Prefix
	kind   Kind
}

// list holds the special blocks. The first one that contains an address decides. The sources are the IANA registries
// of special addresses (RFC 6890) and the documentation of the clouds.
var list = blocks(map[Kind][]string{
	Loopback:  {"127.0.0.0/8", "::1/128"},
	Nowhere:   {"0.0.0.0/8", "240.0.0.0/4", "::/128"},
	Multicast: {"224.0.0.0/4", "ff00::/8"},
	LinkLocal: {"169.254.0.0/16", "fe80::/10"},
	Metadata:  {"168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd20:ce::254/128"},
	Private:   {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10"},
	Reserved: {"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16"},
}, Loopback, Nowhere, Multicast, LinkLocal, Metadata, Private, Reserved)

func blocks(of map[Kind][]string, order ...Kind) (out []block) {
	for _, kind := range order {
		for _, s := range of[kind] {
			out = append(out, block{netip.MustParsePrefix(s), kind})
		}
	}
	return out
}

// Prefixes returns the IPv4 networks of the given kinds.
func Prefixes(kinds ...Kind) (out []netip.Prefix) {
	for _, want := range kinds {
		for _, b := range list {
			if b.kind == want && b.prefix.Addr().Is4() {
				out = append(out, b.prefix)
			}
		}
	}
	return out
}

// IPv6 networks whose addresses contain an IPv4 address, to which a gateway translates (RFC 6052, RFC 3056).
var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
	compat = netip.MustParsePrefix("::/96")
)

// KindOf returns the kind of an address. An IPv6 address that contains an IPv4 address has the kind of that address.
func KindOf(addr netip.Addr) Kind {
	addr = addr.Unmap().WithZone("")
	for _, b := range list {
		if b.prefix.Contains(addr) {
			return b.kind
		}
	}
	if !addr.Is6() {
		return ""
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr), compat.Contains(addr):
		return KindOf(netip.AddrFrom4([4]byte(b[12:])))
	case sixTo4.Contains(addr):
		return KindOf(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return ""
}

// Route says where this host sends a packet.
type Route string

// The values of Route.
const (
	Elsewhere Route = ""          // to another host, or nowhere
	Host      Route = "host"      // the address is this host's own
	Broadcast Route = "broadcast" // all hosts of one of this host's networks have the address
)

// RouteOf returns the present route to an address in the kernel's tables. If the kernel does not answer, it returns
// Host, because callers deny access to the host.
func RouteOf(addr netip.Addr) Route {
	routes, err := netlink.RouteGet(addr.Unmap().WithZone("").AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES),
		errors.Is(err, unix.EINVAL):
		return Elsewhere // there is no route, or it refuses packets (ip-route(8), types)
	case err != nil || len(routes) == 0:
		return Host
	}
	switch routes[0].Type {
	case unix.RTN_LOCAL:
		return Host
	case unix.RTN_BROADCAST, unix.RTN_ANYCAST:
		return Broadcast
	}
	return Elsewhere
}

// Number returns an IPv4 address as a number, so callers can calculate with it.
func Number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// FromNumber returns the IPv4 address with the number n.
func FromNumber(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
