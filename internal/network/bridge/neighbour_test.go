package bridge

import (
	"fmt"
	"slices"
	"testing"

	"banger/internal/ipaddr"
	"banger/internal/network"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestWhichNeighboursChange compares what kernels list for two ports with what is to be
// deleted and added. The Debian listings are those of `bridge -d fdb show` on Linux 6.1.
func TestWhichNeighboursChange(t *testing.T) {
	const bridge, one, two = 10, 11, 12
	c := Config{Networks: []Network{namedNet()}}
	for i := range 2 {
		id := fmt.Sprintf("%012x", i+1)
		address := ipaddr.FromNumber(ipaddr.Number(namedNet().Gateway()) + 1 + uint32(i))
		c.Ports = append(c.Ports, Port{ID: id, Network: "team", Address: address, MAC: network.MAC(id)})
	}
	want := wantedNeighbours(c, map[int]string{1: "lo", bridge: namedNet().Link(), one: c.Ports[0].Tap(),
		two: c.Ports[1].Tap()})
	host := func(n int) netlink.Neigh {
		return netlink.Neigh{LinkIndex: bridge, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
			IP: c.Ports[n].Address.AsSlice(), HardwareAddr: c.Ports[n].mac()}
	}
	entry := func(tap, n, vlan int) netlink.Neigh {
		return netlink.Neigh{LinkIndex: tap, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP,
			HardwareAddr: c.Ports[n].mac(), Vlan: vlan, MasterIndex: bridge}
	}
	own := func(tap, vlan int) netlink.Neigh { // of the tap's own address
		return netlink.Neigh{LinkIndex: tap, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT,
			HardwareAddr: []byte{2, 0, 0, 0, 0, byte(tap)}, Vlan: vlan, MasterIndex: bridge}
	}
	learned := host(0)
	learned.State, learned.HardwareAddr = netlink.NUD_REACHABLE, []byte{2, 0, 0, 0, 0, 99}
	stale := host(1)
	stale.HardwareAddr = c.Ports[0].mac()
	for name, k := range map[string]struct{ have, foreign, missing []netlink.Neigh }{
		"nothing": {nil, nil, want},
		"without VLAN filtering": {[]netlink.Neigh{host(0), own(one, 0), entry(one, 0, 0), host(1), own(two, 0),
			entry(two, 1, 0)}, nil, nil},
		"Debian, the second VM starts": {[]netlink.Neigh{host(0), own(one, 1), own(one, 0), entry(one, 0, 1),
			entry(one, 0, 0)}, nil, want[2:]},
		"Debian, all is there": {[]netlink.Neigh{host(0), host(1), entry(one, 0, 1), entry(one, 0, 0),
			entry(two, 1, 1), entry(two, 1, 0)}, nil, nil},
		"Debian, in the other order": {[]netlink.Neigh{host(0), host(1), entry(one, 0, 0), entry(one, 0, 1),
			entry(two, 1, 0), entry(two, 1, 1)}, nil, nil},
		"Debian, only a copy is left": {[]netlink.Neigh{host(0), host(1), entry(one, 0, 1), entry(two, 1, 1),
			entry(two, 1, 0)}, nil, want[1:2]},
		"Debian, an earlier version's": {[]netlink.Neigh{host(0), host(1), own(one, 1), own(one, 0), entry(two, 1, 1),
			entry(two, 1, 0)}, nil, want[1:2]},
		"Debian, another MAC at the port": {[]netlink.Neigh{host(0), host(1), entry(one, 1, 1), entry(one, 1, 0),
			entry(one, 0, 1), entry(one, 0, 0), entry(two, 1, 0)}, []netlink.Neigh{entry(one, 1, 0)}, nil},
		"learned": {[]netlink.Neigh{learned, host(1), entry(one, 0, 0), entry(two, 1, 0)}, nil,
			want[:1]},
		"another VM's MAC address": {[]netlink.Neigh{host(0), stale, entry(one, 0, 0), entry(two, 1, 0)},
			[]netlink.Neigh{stale}, want[2:3]},
	} {
		t.Run(name, func(t *testing.T) {
			foreign, missing := compareNeighbours(want, k.have)
			if got, want := neighbours(foreign), neighbours(k.foreign); !slices.Equal(got, want) {
				t.Errorf("deleted are %q, want %q", got, want)
			}
			if got, want := neighbours(missing), neighbours(k.missing); !slices.Equal(got, want) {
				t.Errorf("added are %q, want %q", got, want)
			}
			for _, n := range foreign {
				if n.Family == unix.AF_BRIDGE && n.Flags&netlink.NTF_MASTER == 0 {
					t.Errorf("the deletion of %s does not go to the bridge", neighbour(n))
				}
			}
		})
	}
}

func neighbours(list []netlink.Neigh) (out []string) {
	for _, n := range list {
		out = append(out, fmt.Sprintf("%s vlan %d", neighbour(n), n.Vlan))
	}
	return out
}

// TestASecondPortLeavesTheFirst starts a second VM beside one that runs, and then a third:
// the bridge still knows the address of the first, and frames pass between it, the
// others and the host.
func TestASecondPortLeavesTheFirst(t *testing.T) {
	l := newLab(t, namedNet())
	l.config.Ports = []Port{l.port(1, 0, "allow")}
	l.apply()
	first := l.boot(l.config.Ports[0])
	first.serve(80)
	for n := 2; n <= 3; n++ {
		l.config.Ports = append(l.config.Ports, l.port(n, 0, "allow"))
		l.apply()
		for _, p := range l.config.Ports {
			if got := l.entriesWithoutVLAN(p); !slices.Equal(got, []string{p.mac().String()}) {
				t.Errorf("with %d VMs the port of %s has the static entries %q", n, p.Address, got)
			}
		}
		next := l.boot(l.config.Ports[n-1])
		next.serve(80)
		for to, from := range map[string]*place{"172.30.2.2:80": next, l.config.Ports[n-1].Address.String() + ":80": first} {
			if !from.reaches("tcp", to) {
				t.Errorf("with %d VMs one does not reach another at %s", n, to)
			}
		}
		for _, p := range l.config.Ports {
			if to := p.Address.String() + ":80"; !l.host.reaches("tcp", to) {
				t.Errorf("with %d VMs the host does not reach %s", n, to)
			}
		}
	}
}

// TestAPortIsMended deletes what the bridge knows of a running VM, as versions before did
// on Debian's kernels; the next Apply brings the VM back.
func TestAPortIsMended(t *testing.T) {
	l := newLab(t, namedNet())
	p := l.port(1, 0, "allow")
	l.config.Ports = []Port{p}
	l.apply()
	l.boot(p).serve(80)
	tap := l.host.link(p.Tap()).Attrs().Index
	l.host.must(l.host.nl.NeighDel(&netlink.Neigh{LinkIndex: tap, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
		HardwareAddr: p.mac()}))
	to := p.Address.String() + ":80"
	if l.host.reaches("tcp", to) {
		t.Fatal("the host reaches a VM whose port is locked")
	}
	l.apply()
	if !l.host.reaches("tcp", to) {
		t.Errorf("the host does not reach %s again", to)
	}
}

// entriesWithoutVLAN returns the MAC addresses that the bridge knows at a port without
// having learned them.
func (l *lab) entriesWithoutVLAN(p Port) (out []string) {
	l.Helper()
	list, err := l.host.nl.NeighList(l.host.link(p.Tap()).Attrs().Index, unix.AF_BRIDGE)
	l.host.must(err)
	for _, n := range list {
		if n.State == netlink.NUD_NOARP && n.Vlan == 0 {
			out = append(out, n.HardwareAddr.String())
		}
	}
	return out
}
