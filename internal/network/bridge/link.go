package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"banger/internal/ipaddr"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Bridges route between their ports, so they answer for all of a network that is
// not isolated. They take no packet whose source is not on them.
func bridgeSysctls(n Network) [][2]string {
	proxy := "1"
	if n.Isolated {
		proxy = "0"
	}
	return [][2]string{
		{"disable_ipv6", "1"}, {"rp_filter", "1"}, {"src_valid_mark", "1"}, {"proxy_arp_pvlan", proxy},
		{"proxy_delay", "0"}, {"send_redirects", "0"}, {"accept_redirects", "0"}, {"accept_source_route", "0"},
		{"route_localnet", "0"}, {"drop_unicast_in_l2_multicast", "1"}, {"forwarding", "1"},
	}
}

// Taps are only ports.
func tapSysctls() [][2]string {
	return [][2]string{
		{"disable_ipv6", "1"}, {"rp_filter", "1"}, {"drop_unicast_in_l2_multicast", "1"}, {"forwarding", "0"},
	}
}

// taken returns the networks that the host reaches by links that are not ours.
func (b *Bridge) taken() ([]netip.Prefix, error) {
	names, err := b.linkNames()
	if err != nil {
		return nil, err
	}
	routes, err := b.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || prefixed(names[r.LinkIndex]) {
			continue
		}
		if addr, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok {
			bits, _ := r.Dst.Mask.Size()
			out = append(out, netip.PrefixFrom(addr, bits))
		}
	}
	return out, nil
}

// HostNetworks returns the networks that the host reaches by links that are not
// ours, in the calling thread's network namespace.
func HostNetworks() ([]netip.Prefix, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return (&Bridge{nl: h}).taken()
}

// FreeSubnet returns the first part of pool with so many bits that overlaps none of
// taken.
func FreeSubnet(pool netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, bool) {
	for n := ipaddr.Number(pool.Addr()); pool.Contains(ipaddr.FromNumber(n)); n += 1 << (32 - bits) {
		p := netip.PrefixFrom(ipaddr.FromNumber(n), bits)
		if !slices.ContainsFunc(taken, func(t netip.Prefix) bool { return t.Bits() > 0 && t.Overlaps(p) }) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func (b *Bridge) linkNames() (map[int]string, error) {
	links, err := b.nl.LinkList()
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, err
}

// removeLinks removes links of ours that c does not have.
func (b *Bridge) removeLinks(c Config) error {
	links, err := b.nl.LinkList()
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, n := range c.Networks {
		want[n.Link()] = "bridge"
	}
	for _, p := range c.Ports {
		want[p.Tap()] = "tuntap"
	}
	for _, l := range links {
		if name := l.Attrs().Name; prefixed(name) && want[name] != l.Type() {
			if err := b.nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}

// find returns nil when there is no such link.
func (b *Bridge) find(name string) (netlink.Link, error) {
	l, err := b.nl.LinkByName(name)
	if _, absent := err.(netlink.LinkNotFoundError); absent {
		return nil, nil
	}
	return l, err
}

func (b *Bridge) syncBridges(c Config) error {
	for _, n := range c.Networks {
		l, err := b.find(n.Link())
		if err == nil && l == nil {
			off := false
			attrs := netlink.LinkAttrs{Name: n.Link(), HardwareAddr: n.mac(), TxQLen: -1}
			l = &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
			if err = b.nl.LinkAdd(l); err == nil {
				l, err = b.find(n.Link())
			}
		}
		if err == nil {
			err = b.syncBridge(n, l)
		}
		if err != nil {
			return fmt.Errorf("bridge %s of network %s: %w", n.Link(), n.Name, err)
		}
	}
	return nil
}

func (b *Bridge) syncBridge(n Network, l netlink.Link) error {
	if l == nil {
		return unix.ENODEV
	}
	if err := b.fence(l, bridgeFence()); err != nil {
		return err
	}
	if err := sysctls(n.Link(), bridgeSysctls(n)); err != nil {
		return err
	}
	if !bytes.Equal(l.Attrs().HardwareAddr, n.mac()) {
		if err := b.nl.LinkSetHardwareAddr(l, n.mac()); err != nil {
			return err
		}
	}
	gateway := netip.PrefixFrom(n.Gateway(), n.Subnet.Bits())
	have, err := b.nl.AddrList(l, unix.AF_INET)
	if err != nil {
		return err
	}
	found := false
	for _, a := range have {
		if a.IPNet.String() == gateway.String() {
			found = true
		} else if err := b.nl.AddrDel(l, &a); err != nil {
			return err
		}
	}
	if !found {
		a, err := netlink.ParseAddr(gateway.String())
		if err == nil {
			err = b.nl.AddrAdd(l, a)
		}
		if err != nil {
			return err
		}
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		return b.nl.LinkSetUp(l)
	}
	return nil
}

func sysctls(link string, list [][2]string) error {
	for _, s := range list {
		if err := sysctl(link, s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bridge) syncTaps(c Config) error {
	for _, p := range c.Ports {
		l, err := b.find(p.Tap())
		if tap, ok := l.(*netlink.Tuntap); ok && tap.Owner != p.UID {
			err, l = b.nl.LinkDel(l), nil
		}
		if err == nil && l == nil {
			if l, err = b.makeTap(p); l == nil && err == nil {
				err = unix.ENODEV
			}
		}
		if err == nil {
			err = b.syncTap(p, c.network(p.Network), l)
		}
		if err != nil {
			return fmt.Errorf("tap %s: %w", p.Tap(), err)
		}
	}
	return b.syncNeighbours(c)
}

func (b *Bridge) makeTap(p Port) (netlink.Link, error) {
	// The kernel asks for the owner and for the group, and the library gives the tap to root's
	// if none is named.
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: p.Tap()},
		Mode:      netlink.TUNTAP_MODE_TAP,
		Flags:     netlink.TUNTAP_NO_PI | netlink.TUNTAP_TUN_EXCL,
		Owner:     p.UID,
		Group:     p.UID,
		Queues:    1,
	}
	if err := b.nl.LinkAdd(tap); err != nil {
		return nil, err
	}
	for _, fd := range tap.Fds {
		_ = fd.Close() // it is persistent
	}
	return b.find(p.Tap())
}

// syncTap connects a tap last, when everything about it is in force.
func (b *Bridge) syncTap(p Port, n Network, l netlink.Link) error {
	bridge, err := b.find(n.Link())
	if err != nil || bridge == nil {
		return errors.Join(err, unix.ENODEV)
	}
	if l.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := errors.Join(b.nl.LinkSetDown(l), b.nl.LinkSetMaster(l, bridge)); err != nil {
			return err
		}
	}
	if err := b.fence(l, tapFence()); err != nil {
		return err
	}
	if err := sysctls(p.Tap(), tapSysctls()); err != nil {
		return err
	}
	if l.Attrs().RawFlags&unix.IFF_NOARP == 0 {
		if err := b.nl.LinkSetARPOff(l); err != nil {
			return err
		}
	}
	if info, err := b.nl.LinkGetProtinfo(l); err != nil || !info.Isolated || info.Learning || info.Flood {
		if err := b.lockPort(l); err != nil {
			return fmt.Errorf("lock the port: %w", err)
		}
	}
	if l.Attrs().Alias != p.alias() {
		if err := b.nl.LinkSetAlias(l, p.alias()); err != nil {
			return err
		}
	}
	if l.Attrs().Flags&net.FlagUp == 0 || l.Attrs().MasterIndex != bridge.Attrs().Index {
		return b.nl.LinkSetUp(l)
	}
	return nil
}

// lockPort isolates a port from others (Linux 4.18), keeps it to the addresses of
// static entries (5.18), and floods nothing to it.
func (b *Bridge) lockPort(l netlink.Link) error {
	req := b.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(l.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for key, value := range map[int]byte{
		nl.IFLA_BRPORT_ISOLATED:      1,
		nl.IFLA_BRPORT_LOCKED:        1,
		nl.IFLA_BRPORT_LEARNING:      0,
		nl.IFLA_BRPORT_UNICAST_FLOOD: 0,
		nl.IFLA_BRPORT_MCAST_FLOOD:   0,
		nl.IFLA_BRPORT_BCAST_FLOOD:   0,
	} {
		info.AddRtAttr(key, []byte{value})
	}
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// prefixed reports whether a link's name says that it is ours.
func prefixed(name string) bool {
	return strings.HasPrefix(name, bridgePrefix) || strings.HasPrefix(name, tapPrefix)
}
