package bridge

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Protocol and priority identify our routing rules. The rules come after the local table and before
// those of VPNs, which usually have priorities near 32000.
const (
	ruleProtocol = 97
	ruleGuests   = 10600 + iota // what comes from a bridge and may not pass
	ruleRefused                 // the way back to a guest whose packet may not pass (the reverse path check)
	ruleHostOut                 // what the host sends to a guest
	ruleAnswers                 // what may pass to a guest
	ruleOthers                  // what else is sent to a guest
	ruleForeign                 // what others send through a link that forwards because of us
)

// routingRules returns rules that drop packets without our mark from and to each network. The rules
// do not depend on nftables. opened are links that forward only because of us.
func (c Config) routingRules(opened []string) []netlink.Rule {
	var out []netlink.Rule
	add := func(priority int, iif string, to netip.Prefix, mark, mask uint32, table int) {
		r := *netlink.NewRule()
		r.Family, r.Priority, r.IifName, r.Table, r.Protocol = unix.AF_INET, priority, iif, table, ruleProtocol
		if table == 0 {
			r.Type = unix.RTN_BLACKHOLE
		}
		if to.IsValid() {
			r.Dst = &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}
		}
		if mask != 0 {
			r.Mark, r.Mask = mark, &mask
		}
		out = append(out, r)
	}
	for _, n := range c.Networks {
		add(ruleGuests, n.Link(), netip.Prefix{}, 0, markAllowed, 0)
		add(ruleRefused, "lo", n.Subnet, markAdmitted, markAdmitted|markAllowed, 0)
		add(ruleHostOut, "lo", n.Subnet, 0, 0, unix.RT_TABLE_MAIN)
		add(ruleAnswers, "", n.Subnet, markAllowed, markAllowed, unix.RT_TABLE_MAIN)
		add(ruleOthers, "", n.Subnet, 0, 0, 0)
	}
	for _, link := range opened {
		add(ruleForeign, link, netip.Prefix{}, 0, 0, 0)
	}
	return out
}

func ruleKey(r netlink.Rule) string {
	mask := uint32(0)
	if r.Mask != nil {
		mask = *r.Mask
	}
	return fmt.Sprintf("%d iif %s to %v mark %x/%x table %d", r.Priority, r.IifName, r.Dst, r.Mark, mask, r.Table)
}

// syncRules makes the rules of the networks and keeps those of links.
func (b *Bridge) syncRules(c Config) error {
	m, err := b.load()
	if err != nil {
		return err
	}
	return b.setRules(c.routingRules(m.opened()))
}

func (b *Bridge) setRules(rules []netlink.Rule) error {
	have, err := b.nl.RuleList(unix.AF_INET)
	if err != nil {
		return err
	}
	want := map[string]netlink.Rule{}
	for _, r := range rules {
		want[ruleKey(r)] = r
	}
	var gone []netlink.Rule
	for _, r := range have {
		if r.Protocol != ruleProtocol || r.Priority < ruleGuests || r.Priority > ruleForeign {
			continue
		}
		if _, ok := want[ruleKey(r)]; ok {
			delete(want, ruleKey(r))
		} else {
			gone = append(gone, r)
		}
	}
	for _, r := range rules { // in order: nothing may open before it is closed
		if _, missing := want[ruleKey(r)]; missing {
			if err := b.nl.RuleAdd(&r); err != nil {
				return fmt.Errorf("add rule %s: %w", ruleKey(r), err)
			}
		}
	}
	for _, r := range gone {
		if err := b.nl.RuleDel(&r); err != nil {
			return fmt.Errorf("remove rule %s: %w", ruleKey(r), err)
		}
	}
	return nil
}
