package ipaddr

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"banger/internal/testing/processtest"

	"github.com/vishvananda/netlink"
)

// TestMain runs the tests in a network namespace of their own.
func TestMain(m *testing.M) {
	processtest.InNamespace()
	os.Exit(m.Run())
}

func TestKinds(t *testing.T) {
	for text, want := range map[string]Kind{
		"8.8.8.8": "", "2606:4700::1111": "", "100.63.255.255": "", "100.128.0.1": "", "172.32.0.1": "", "2001:200::1": "",
		"127.0.0.1": Loopback, "127.255.255.254": Loopback, "::1": Loopback, "::ffff:127.0.0.1": Loopback,
		"64:ff9b::127.0.0.1": Loopback, "::127.0.0.1": Loopback, "2002:7f00:1::1": Loopback,
		"169.254.169.254": LinkLocal, "fe80::1%eth0": LinkLocal, "64:ff9b::169.254.169.254": LinkLocal,
		"168.63.129.16": Metadata, "100.100.100.200": Metadata, "192.0.0.192": Metadata,
		"fd00:ec2::254": Metadata, "fd20:ce::254": Metadata,
		"10.1.2.3": Private, "172.16.0.1": Private, "172.31.255.255": Private, "192.168.0.1": Private, "100.64.0.1": Private,
		"fd12::1": Private, "2002:c0a8:1::1": Private, "::ffff:10.0.0.1": Private,
		"192.0.2.1": Reserved, "198.19.0.1": Reserved, "203.0.113.9": Reserved, "192.0.0.1": Reserved,
		"2001:db8::1": Reserved, "2001::1": Reserved,
		"224.0.0.1": Multicast, "239.1.2.3": Multicast, "ff02::1": Multicast,
		"0.0.0.0": Nowhere, "0.1.2.3": Nowhere, "255.255.255.255": Nowhere, "240.0.0.1": Nowhere, "::": Nowhere,
	} {
		if got := KindOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %q, not %q", text, got, want)
		}
	}
}

// TestRoutes looks at a host with two addresses in one network. The second address has the first one as its source.
func TestRoutes(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	lan := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "peer"}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(lan), netlink.LinkSetUp(lan)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"192.168.77.2/24", "192.168.77.3/24", "5.5.5.2/30"} {
		a, err := netlink.ParseAddr(text)
		if err == nil {
			err = netlink.AddrAdd(lan, a)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]Route{
		"127.0.0.1": Host, "127.9.9.9": Host, "::1": Host, "::ffff:127.0.0.1": Host,
		"192.168.77.2": Host, "192.168.77.3": Host, "5.5.5.2": Host,
		"192.168.77.255": Broadcast, "5.5.5.3": Broadcast,
		"192.168.77.4": Elsewhere, "5.5.5.1": Elsewhere, "8.8.8.8": Elsewhere, "2606:4700::1111": Elsewhere,
	} {
		if got := RouteOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %q, not %q", text, got, want)
		}
	}
}
