package bridge

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"banger/internal/network/bridge/nft"
	"banger/internal/testing/processtest"

	"banger/internal/ipaddr"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"banger"
)

// changes opens a counter of the kernel's messages about nftables and links.
func (l *lab) changes() func() int {
	l.Helper()
	var sockets []*nl.NetlinkSocket
	for family, groups := range map[int][]uint{unix.NETLINK_NETFILTER: {unix.NFNLGRP_NFTABLES},
		unix.NETLINK_ROUTE: {unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_ROUTE,
			unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_NETCONF}} {
		s, err := nl.SubscribeAt(netns.NsHandle(int(l.host.ns.Fd())), netns.None(), family, groups...)
		l.host.must(err)
		l.Cleanup(s.Close)
		now := unix.NsecToTimeval(int64(time.Millisecond))
		l.host.must(s.SetReceiveTimeout(&now))
		sockets = append(sockets, s)
	}
	return func() (n int) {
		for _, s := range sockets {
			for {
				messages, _, err := s.Receive()
				if err != nil {
					break
				}
				for _, m := range messages {
					l.Logf("the kernel tells of type %d, flags %x: %x", m.Header.Type, m.Header.Flags, m.Data)
				}
				n += len(messages)
			}
		}
		return n
	}
}

// settle waits until the kernel has reported everything that an Apply has caused. It reports up to
// a second later that a link without a VMM is down (linkwatch).
func (l *lab) settle() {
	l.Helper()
	s, err := nl.SubscribeAt(netns.NsHandle(int(l.host.ns.Fd())), netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	l.host.must(err)
	defer s.Close()
	step := unix.NsecToTimeval(int64(100 * time.Millisecond))
	l.host.must(s.SetReceiveTimeout(&step))
	for limit := time.Now().Add(30 * time.Second); ; {
		links, err := l.host.nl.LinkList()
		l.host.must(err)
		if !slices.ContainsFunc(links, func(link netlink.Link) bool {
			return prefixed(link.Attrs().Name) && link.Attrs().OperState != netlink.OperDown
		}) {
			return
		}
		if time.Now().After(limit) {
			l.Fatal("the links do not settle")
		}
		_, _, _ = s.Receive() // something came, or a tenth of a second has gone
	}
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	l := newLab(t, defaultNet(), namedNet())
	l.config.Ports = []Port{l.port(1, 0, "allow"), l.port(2, 1, "allow 8.8.8.8 tcp:80-90\ndefault deny")}
	l.apply()
	l.settle()
	count := l.changes()
	l.apply()
	if n := count(); n != 0 {
		t.Errorf("the second Apply made %d changes", n)
	}
	l.bridge.Close()
	l.open()
	count()
	l.apply()
	if n := count(); n != 0 {
		t.Errorf("the first Apply of the next daemon made %d changes", n)
	}
}

func TestTwelveRulesForTwoHundredVMs(t *testing.T) {
	l := newLab(t, Network{Name: "default", Subnet: defaultNet().Subnet, Isolated: true})
	for i := range 200 {
		l.config.Ports = append(l.config.Ports, l.port(i+1, 0, "allow 8.8.8.8 tcp:80\nallow *.example\ndefault deny"))
	}
	l.apply()
	rules, elements := 0, 0
	for _, table := range l.config.tables() {
		for _, c := range table.Chains {
			have, err := l.bridge.nft.GetRules(table.Table, c.Chain)
			l.host.must(err)
			rules += len(have)
		}
		for _, s := range table.Sets {
			have, err := l.bridge.nft.GetSetElements(s.Set)
			l.host.must(err)
			elements += len(have)
		}
	}
	if rules > 12 {
		t.Errorf("there are %d rules", rules)
	}
	if elements < 200*8 {
		t.Errorf("there are only %d elements", elements)
	}
}

// TestFlushingOpensNothing has a VM send where it may not while somebody flushes
// the ruleset again and again, and then awaits the repair, which another VM sees:
// the queue of the first is full.
func TestFlushingOpensNothing(t *testing.T) {
	l := newLab(t, defaultNet())
	outside, host := l.outside.serve(99), l.host.serve(99)
	l.outside.serve(80)
	const policy = "allow 8.8.8.8 tcp:80\ndefault deny"
	l.config.Ports = []Port{l.port(1, 0, policy), l.port(2, 0, policy)}
	l.apply()
	vm, witness := l.boot(l.config.Ports[0]), l.boot(l.config.Ports[1])
	l.watch()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := make(chan int, 2)
	for _, to := range []string{"8.8.4.4:99", "172.30.1.1:99"} {
		c, err := vm.dial("udp", to)
		l.host.must(err)
		defer c.Close()
		go func() {
			n := 0
			for ctx.Err() == nil {
				if _, err := c.Write([]byte("x")); err == nil {
					n++
				}
			}
			sent <- n
		}()
	}
	conn, err := nft.Open(int(l.host.ns.Fd()))
	l.host.must(err)
	defer conn.CloseLasting()
	for range 50 {
		conn.FlushRuleset()
		l.host.must(conn.Flush())
	}
	for _, flush := range l.config.tables() { // the rules alone, not the sets
		conn.FlushTable(flush.Table)
		_ = conn.Flush() // the table may be there or not
	}
	for _, t := range l.config.tables() { // one of the two alone
		conn.DelTable(t.Table)
		_ = conn.Flush() // it may be there or not
	}
	start := time.Now()
	for !witness.reaches("tcp", "8.8.8.8:80") {
		if time.Since(start) > 5*time.Second {
			t.Fatal("not repaired in 5 s")
		}
	}
	cancel()
	if n := <-sent + <-sent; n < 1000 {
		t.Errorf("only %d packets were sent", n)
	}
	if n := len(outside); n > 0 {
		t.Errorf("%d forbidden packets arrived outside", n)
	}
	if n := len(host); n > 0 {
		t.Errorf("%d forbidden packets arrived at the host", n)
	}
}

// TestNothingIsLeft changes a host that has a table, a link and settings of its own
// and compares all before and after.
func TestNothingIsLeft(t *testing.T) {
	processtest.Long(t)
	l := newLab(t, defaultNet(), namedNet())
	foreign := &nftables.Table{Name: "foreign", Family: nftables.TableFamilyINet}
	l.bridge.nft.AddTable(foreign)
	c := l.bridge.nft.AddChain(&nftables.Chain{Table: foreign, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	l.bridge.nft.AddRule(&nftables.Rule{Table: foreign, Chain: c, Exprs: (Config{}).tables()[1].Chains[1].Rules[4].Exprs})
	l.host.must(l.bridge.nft.Flush())
	before := l.snapshot()
	for i := range 200 {
		l.config.Ports = []Port{l.port(1+i%2, i%2, "allow")}
		l.apply()
		if i%10 == 9 { // what a daemon that is killed leaves
			l.bridge.Close()
			l.open()
		}
		if i%20 == 19 {
			l.host.must(l.bridge.Remove(context.Background()))
		}
	}
	l.apply()
	l.host.must(l.host.do(func() error {
		return l.host.nl.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "bgt00000000dead"},
			Mode: netlink.TUNTAP_MODE_TAP})
	}))
	l.bridge.Close()
	l.open()
	l.host.must(l.bridge.Remove(context.Background()))
	if after := l.snapshot(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if _, err := os.Stat(l.saved); !os.IsNotExist(err) {
		t.Errorf("the file of what was found is there: %v", err)
	}
}

// snapshot returns all that Bridge could have changed, in the kernel's own bytes except where they
// contain counters.
func (l *lab) snapshot() string {
	l.Helper()
	var b strings.Builder
	for _, kind := range []int{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSET} {
		socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(int(l.host.ns.Fd())), netns.None(), unix.NETLINK_NETFILTER)
		l.host.must(err)
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
		req.AddData(&nl.Nfgenmsg{})
		messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
		l.host.must(err)
		socket.Close()
		for _, m := range messages {
			fmt.Fprintf(&b, "%x\n", m[4:]) // without the number of the generation
		}
	}
	links, err := l.host.nl.LinkList()
	l.host.must(err)
	for _, link := range links {
		name := link.Attrs().Name
		l.host.must(l.host.do(func() error {
			for _, key := range []string{"forwarding", "src_valid_mark", "rp_filter"} {
				data, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/" + key)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, "%s %s %s", name, key, data)
			}
			return nil
		}))
	}
	rules, err := l.host.nl.RuleList(unix.AF_INET)
	l.host.must(err)
	routes, err := l.host.nl.RouteListFiltered(unix.AF_INET, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	l.host.must(err)
	fmt.Fprintln(&b, rules, routes)
	return b.String()
}

func TestAReusedAddressHasNoOldFlows(t *testing.T) {
	l := newLab(t, defaultNet())
	l.outside.serve(80)
	l.config.Ports = []Port{l.port(1, 0, "allow")}
	l.apply()
	vm := l.boot(l.config.Ports[0])
	c, err := vm.dial("tcp", "8.8.8.8:80")
	l.host.must(err)
	defer c.Close()
	l.config.Ports = nil
	l.apply()
	flows, err := l.host.nl.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	l.host.must(err)
	for _, f := range flows {
		if addrOfIP(f.Forward.SrcIP) == ipaddr.FromNumber(172<<24|30<<16|1<<8|2) {
			t.Errorf("there is still %s", f)
		}
	}
}

func TestWhatIsRefusedHasNoEffect(t *testing.T) {
	l := newLab(t, Network{Name: "x", Subnet: prefixes("10.0.0.0/8")[0]})
	l.host.route("10.9.0.0/16", "9.9.9.2")
	before := l.snapshot()
	if err := l.bridge.Apply(context.Background(), l.config); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a network that the host reaches is not refused: %v", err)
	}
	if l.snapshot() != before {
		t.Error("something was changed")
	}
}

// TestWithoutATableNothingPasses deletes tables while nobody repairs them.
func TestWithoutATableNothingPasses(t *testing.T) {
	processtest.Long(t)
	l := newLab(t, defaultNet(), namedNet())
	outside, host := l.outside.serve(99), l.host.serve(99)
	l.outside.route("172.30.0.0/16", "9.9.9.1")
	l.config.Ports = []Port{l.port(1, 0, "allow 8.8.8.8\ndefault deny"), l.port(2, 1, "deny"), l.port(3, 1, "deny")}
	l.apply()
	vm, other, friend := l.boot(l.config.Ports[0]), l.boot(l.config.Ports[1]), l.boot(l.config.Ports[2])
	inside := other.serve(99)
	tables := l.config.tables()
	for name, gone := range map[string][]nft.Table{"frames": tables[:1], "packets": tables[1:], "both": tables} {
		t.Run(name, func(t *testing.T) {
			l.apply()
			if !vm.reaches("tcp", "8.8.8.8:99") || !friend.reaches("udp", "172.30.2.3:99") {
				t.Fatal("nothing passes even with the tables")
			}
			for len(outside) > 0 || len(inside) > 0 {
				select {
				case <-outside:
				case <-inside:
				}
			}
			for _, table := range gone {
				l.bridge.nft.DelTable(table.Table)
			}
			l.host.must(l.bridge.nft.Flush())
			for _, c := range []struct {
				from *place
				to   string
			}{{vm, "8.8.8.8:99"}, {vm, "8.8.4.4:99"}, {vm, "172.30.1.1:99"}, {vm, "9.9.9.1:99"}, {vm, "172.30.2.3:99"},
				{friend, "172.30.2.3:99"}, {l.outside, "172.30.2.3:99"}} {
				if c.from.reaches("udp", c.to) {
					t.Errorf("%s is reached", c.to)
				}
			}
			if len(outside)+len(host)+len(inside) > 0 {
				t.Errorf("%d datagrams arrived outside, %d at the host, %d at a VM", len(outside), len(host), len(inside))
			}
		})
	}
}
