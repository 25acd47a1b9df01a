package bridge

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// syncNeighbours sets static entries: for the bridge the port of each MAC address, and for the host
// the MAC address of each address. Neither is then learned from guests.
func (b *Bridge) syncNeighbours(c Config) error {
	names, err := b.linkNames()
	if err != nil {
		return err
	}
	var have []netlink.Neigh
	for i, name := range names {
		if !prefixed(name) {
			continue
		}
		family := unix.AF_INET
		if strings.HasPrefix(name, tapPrefix) {
			family = unix.AF_BRIDGE
		}
		list, err := b.nl.NeighList(i, family)
		if err != nil {
			return err
		}
		have = append(have, list...)
	}
	foreign, missing := compareNeighbours(wantedNeighbours(c, names), have)
	for _, n := range foreign {
		if err := b.nl.NeighDel(&n); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for _, n := range missing {
		if err := b.nl.NeighSet(&n); err != nil {
			return err
		}
	}
	return nil
}

// wantedNeighbours returns the entries of all ports, where names are the links by their
// index: the host's for the address, and the bridge's for the port.
func wantedNeighbours(c Config, names map[int]string) (want []netlink.Neigh) {
	index := map[string]int{}
	for i, name := range names {
		index[name] = i
	}
	for _, p := range c.Ports {
		want = append(want,
			netlink.Neigh{LinkIndex: index[c.network(p.Network).Link()], Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
				IP: p.Address.AsSlice(), HardwareAddr: p.mac()},
			netlink.Neigh{LinkIndex: index[p.Tap()], Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER,
				HardwareAddr: p.mac()})
	}
	return want
}

// compareNeighbours returns which static entries of have are to be deleted, and which of
// want are to be added.
//
// A kernel with CONFIG_BRIDGE_VLAN_FILTERING, such as Debian's, copies a bridge's entry
// that is made without a VLAN into each VLAN of the port, which is VLAN 1 by default. So it
// lists the entry twice. Our bridges do not filter by VLAN: they look only at the entry
// without one. Entries of a VLAN thus have no effect, neither as a stranger's nor in place
// of ours, and they are ignored. Never delete an entry because its copy is in the list: a
// deletion that names no VLAN deletes the entry of every VLAN.
func compareNeighbours(want, have []netlink.Neigh) (foreign, missing []netlink.Neigh) {
	left := map[string]netlink.Neigh{}
	for _, n := range want {
		left[neighbour(n)] = n
	}
	for _, n := range have {
		if n.State != staticState(n.Family) || n.Vlan != 0 {
			continue
		}
		if _, ok := left[neighbour(n)]; ok {
			delete(left, neighbour(n))
			continue
		}
		if n.Family == unix.AF_BRIDGE {
			n.Flags |= netlink.NTF_MASTER
		}
		foreign = append(foreign, n)
	}
	for _, n := range want {
		if _, ok := left[neighbour(n)]; ok {
			missing = append(missing, n)
		}
	}
	return foreign, missing
}

// staticState returns the state of an entry that is neither learned nor a link's own.
func staticState(family int) int {
	if family == unix.AF_BRIDGE {
		return netlink.NUD_NOARP
	}
	return netlink.NUD_PERMANENT
}

func neighbour(n netlink.Neigh) string {
	return fmt.Sprint(n.LinkIndex, n.IP, n.HardwareAddr)
}
