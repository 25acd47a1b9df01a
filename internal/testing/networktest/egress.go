package networktest

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/net/icmp"
)

// Who answers the guest at an address.
const (
	Nobody   = ""
	World    = "the internet"
	TheHost  = "the host"
	GuestOwn = "the guest itself"
)

// Destination is what a guest may try, and who answers.
type Destination struct {
	Address string
	allow   string // under policy allow
	named   string // under policy deny, with rules that name some
}

// Destinations are what a guest may try.
var Destinations = []Destination{
	// The Internet.
	{"1.1.1.1", World, Nobody}, {"8.8.8.8", World, World}, {"8.8.4.4", World, Nobody},
	{"9.9.9.9", World, Nobody},
	{"4.2.2.1", World, Nobody}, {"11.0.0.1", World, Nobody}, {"99.255.255.255", World, Nobody},
	{"100.63.255.255", World, Nobody},
	{"100.128.0.1", World, Nobody}, {"128.0.0.1", World, Nobody}, {"151.101.2.132", World, World},
	{"169.253.255.255", World, Nobody},
	{"169.255.0.1", World, Nobody}, {"172.15.255.255", World, Nobody}, {"172.32.0.1", World, Nobody},
	{"191.255.255.255", World, Nobody},
	{"192.167.255.255", World, Nobody}, {"192.169.0.1", World, Nobody}, {"198.17.255.255", World, Nobody},
	{"198.20.0.1", World, Nobody},
	{"223.255.255.254", World, Nobody}, {"5.5.5.1", World, Nobody},
	// The host.
	{HostPublic, Nobody, Nobody}, {HostPrivate, Nobody, TheHost}, {HostSecond, Nobody, Nobody},
	{"5.5.5.255", Nobody, Nobody}, {"192.168.77.255", Nobody, Nobody}, // everybody beside the host
	{"127.0.0.1", GuestOwn, GuestOwn}, {"127.0.0.53", GuestOwn, GuestOwn}, {"127.255.255.254", GuestOwn, GuestOwn},
	{"10.0.2.2", Nobody, Nobody}, {"10.0.2.3", Nobody, Nobody},
	// Local networks.
	{"10.0.0.1", Nobody, Nobody}, {"10.0.2.4", Nobody, Nobody}, {"10.1.2.3", Nobody, World},
	{"10.1.255.255", Nobody, World}, {"10.2.0.1", Nobody, Nobody},
	{"10.255.255.254", Nobody, Nobody}, {"172.16.0.1", Nobody, Nobody}, {"172.31.255.254", Nobody, Nobody},
	{"192.168.0.1", Nobody, Nobody},
	{"192.168.77.9", Nobody, Nobody}, {"192.168.255.254", Nobody, Nobody}, {"100.64.0.1", Nobody, Nobody},
	{"100.127.255.254", Nobody, Nobody},
	// Link-local, metadata, and other special addresses.
	{"169.254.169.254", Nobody, Nobody}, {"169.254.170.2", Nobody, Nobody}, {"169.254.0.1", Nobody, Nobody},
	{"168.63.129.16", Nobody, Nobody},
	{"100.100.100.200", Nobody, Nobody}, {"192.0.0.192", Nobody, Nobody}, {"192.0.2.1", Nobody, Nobody},
	{"198.18.0.1", Nobody, Nobody},
	{"198.51.100.1", Nobody, Nobody}, {"203.0.113.1", Nobody, Nobody}, {"192.88.99.1", Nobody, Nobody},
	{"0.1.2.3", Nobody, Nobody}, {"224.0.0.1", Nobody, Nobody}, {"239.255.255.250", Nobody, Nobody},
	{"240.0.0.1", Nobody, Nobody}, {"255.255.255.255", Nobody, Nobody},
}

// EgressPolicies say of each destination who answers.
var EgressPolicies = map[string]struct {
	Policy string
	Want   func(at int) string
}{
	"allow": {"allow", func(at int) string { return Destinations[at].allow }},
	"deny": {"deny", func(at int) string {
		if Destinations[at].allow == GuestOwn {
			return GuestOwn
		}
		return Nobody
	}},
	"deny but": {
		"allow 8.8.8.8\nallow 151.101.0.0/16\nallow 10.1.0.0/16\nallow " + HostPrivate,
		func(at int) string { return Destinations[at].named },
	},
	// Rules that hold addresses of the host do not name them.
	"networks": {"deny 10.0.2.0/24\ndeny 192.168.77.9\nallow private\nallow 5.5.5.0/24\n" +
		"allow 192.168.77.0/24", func(at int) string {
		d := Destinations[at]
		addr := netip.MustParseAddr(d.Address)
		closed := []string{
			HostPublic, HostPrivate, HostSecond, "5.5.5.255", "192.168.77.255", "192.168.77.9",
			"10.0.2.2", "10.0.2.3", "10.0.2.4",
		}
		open := []string{"5.5.5.1", "100.64.0.1", "100.127.255.254"} // not 100.100.100.200
		switch {
		case d.allow == GuestOwn:
			return GuestOwn
		case slices.Contains(closed, d.Address):
			return Nobody
		case addr.IsPrivate(), slices.Contains(open, d.Address):
			return World
		}
		return Nobody
	}},
	// The same, said the other way round.
	"allow but": {"deny 8.8.8.0/24\ndeny private\nallow any", func(at int) string {
		if Destinations[at].Address == "8.8.8.8" {
			return Nobody
		}
		return Destinations[at].allow
	}},
}

// Pinged makes a socket for echo requests read like a connection. It writes nothing.
type Pinged struct{ *icmp.PacketConn }

// Read implements net.Conn.
func (p Pinged) Read(b []byte) (int, error) {
	n, _, err := p.ReadFrom(b)
	return n, err
}

// Write implements net.Conn.
func (p Pinged) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

// RemoteAddr implements net.Conn.
func (p Pinged) RemoteAddr() net.Addr { return nil }
