package bridge

import (
	"embed"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"banger/internal/network/bridge/nft"

	"banger/internal/ipaddr"
	"banger/internal/network"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/notation"
)

// testdata is what the tests compare with, also where the source tree is not.
//
//go:embed testdata
var testdata embed.FS

// TestTheTablesAsText compares the tables of two VMs with testdata/bridge.nft; what
// the kernel has is compared with the same declaration in TestApplyTwiceChangesNothing.
func TestTheTablesAsText(t *testing.T) {
	got := nft.Text(twoGuests(t).tables())
	want, err := testdata.ReadFile("testdata/bridge.nft")
	if err != nil {
		t.Fatalf("%v; it should be:\n%s", err, got)
	}
	if got != string(want) {
		t.Errorf("the tables are\n%s", got)
	}
}

// twoGuests returns two networks, with a VM that may go anywhere and one that may not.
func twoGuests(t *testing.T) Config {
	t.Helper()
	deny, err := notation.ParsePolicy("allow 8.8.8.0/24 tcp:80,443\nallow host tcp:8080\ndefault deny")
	if err != nil {
		t.Fatal(err)
	}
	return Config{Networks: []Network{defaultNet(), namedNet()}, Ports: []Port{
		{ID: "000000000001", Network: "default", Address: ipaddr.FromNumber(ipaddr.Number(defaultNet().Gateway()) + 1),
			MAC: network.MAC("1"), Policy: banger.Policy{Default: banger.Allow}},
		{ID: "000000000002", Network: "team", Address: ipaddr.FromNumber(ipaddr.Number(namedNet().Gateway()) + 1),
			MAC: network.MAC("2"), Policy: deny},
	}}
}

// TestTheLinksAsText compares what one VM has made on the host, beside the tables, with
// testdata/bridge.links: links, addresses, neighbours, fences, routing rules and
// settings.
func TestTheLinksAsText(t *testing.T) {
	l := newLab(t, namedNet())
	p := l.port(1, 0, "allow")
	l.config.Ports = []Port{p}
	l.apply()
	got := l.linksAsText(namedNet().Link(), p.Tap())
	want, err := testdata.ReadFile("testdata/bridge.links")
	if err != nil {
		t.Fatalf("%v; it should be:\n%s", err, got)
	}
	if got != string(want) {
		t.Errorf("the host has\n%s", got)
	}
}

func (l *lab) linksAsText(names ...string) string {
	l.Helper()
	var b strings.Builder
	for _, name := range names {
		link := l.host.link(name)
		a := link.Attrs()
		master := "-"
		if a.MasterIndex != 0 {
			m, err := l.host.nl.LinkByIndex(a.MasterIndex)
			l.host.must(err)
			master = m.Attrs().Name
		}
		fmt.Fprintf(&b, "link %s %s mtu %d up %v arp %v master %s\n", name, link.Type(), a.MTU, a.Flags&net.FlagUp != 0,
			a.RawFlags&unix.IFF_NOARP == 0, master)
		if tap, ok := link.(*netlink.Tuntap); ok {
			info, err := l.host.nl.LinkGetProtinfo(link)
			l.host.must(err)
			fmt.Fprintf(&b, "\tport isolated %v learning %v flood %v; owner %d\n", info.Isolated, info.Learning, info.Flood,
				tap.Owner)
		}
		addrs, err := l.host.nl.AddrList(link, unix.AF_UNSPEC)
		l.host.must(err)
		for _, a := range addrs {
			fmt.Fprintf(&b, "\taddress %s\n", a.IPNet)
		}
		for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
			neighbours, err := l.host.nl.NeighList(a.Index, family)
			l.host.must(err)
			for _, n := range neighbours {
				// A kernel with VLAN filtering lists a copy of each entry, see compareNeighbours.
				if n.IP != nil || family == unix.AF_BRIDGE && n.State == netlink.NUD_NOARP && n.Vlan == 0 {
					fmt.Fprintf(&b, "\tneighbour %v %s state %x\n", n.IP, n.HardwareAddr, n.State)
				}
			}
		}
		filters, err := l.host.nl.FilterList(link, netlink.HANDLE_MIN_INGRESS)
		l.host.must(err)
		for _, f := range filters {
			fmt.Fprintf(&b, "\tingress %s handle %x priority %d\n", f.Type(), f.Attrs().Handle, f.Attrs().Priority)
		}
		list := tapSysctls()
		if link.Type() == "bridge" {
			list = bridgeSysctls(namedNet())
		}
		for _, s := range list {
			value := ""
			l.host.must(l.host.do(func() error {
				data, err := os.ReadFile(sysctlPath(name, s[0]))
				value = strings.TrimSpace(string(data))
				return err
			}))
			fmt.Fprintf(&b, "\tsetting %s = %s\n", s[0], value)
		}
	}
	rules, err := l.host.nl.RuleList(unix.AF_INET)
	l.host.must(err)
	for _, r := range rules {
		if r.Protocol == ruleProtocol {
			fmt.Fprintf(&b, "rule %s\n", ruleKey(r))
		}
	}
	return b.String()
}
