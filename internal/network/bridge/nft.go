package bridge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// One batch must fit into the socket's buffer, and one message of elements into a
// netlink attribute of 64 KiB.
const (
	nftBuffer       = 16 << 20
	elementsMessage = 300
	elementsBatch   = 4096
)

// openNft returns a connection to the nftables of a namespace.
func openNft(ns int) (*nftables.Conn, error) {
	return nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(ns), nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := c.SetWriteBuffer(nftBuffer); err != nil {
			return err
		}
		return c.SetReadBuffer(nftBuffer)
	}))
}

// syncTables makes the tables as declared and reports whether it had to change
// anything. A table whose rules or sets are not as declared is replaced in one
// transaction; else only elements change.
func (b *Bridge) syncTables(want []table) (changed bool, err error) {
	for _, t := range want {
		same, err := b.sameShape(t)
		if err != nil {
			return changed, err
		}
		if !same {
			changed = true
			if err := b.makeTable(t); err != nil {
				return changed, fmt.Errorf("make table %s: %w", t.Name, err)
			}
		}
		for _, s := range t.sets {
			did, err := b.syncElements(s)
			if err != nil {
				return changed, fmt.Errorf("fill set %s: %w", s.Name, err)
			}
			changed = changed || did
		}
	}
	return changed, nil
}

// sameShape compares chains, rules and the names and flags of sets.
func (b *Bridge) sameShape(want table) (bool, error) {
	tables, err := b.nft.ListTablesOfFamily(want.Family)
	if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == want.Name && t.Flags == 0 }) {
		return false, err
	}
	all, err := b.nft.ListChainsOfTableFamily(want.Family)
	if err != nil {
		return false, err
	}
	all = slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != want.Name })
	if len(all) != len(want.chains) {
		return false, nil
	}
	for _, c := range want.chains {
		if !slices.ContainsFunc(all, func(have *nftables.Chain) bool { return sameChain(c.Chain, have) }) {
			return false, nil
		}
		rules, err := b.nft.GetRules(want.Table, c.Chain)
		if err != nil {
			return false, err
		}
		if !slices.EqualFunc(rules, c.rules, func(have *nftables.Rule, want nftRule) bool {
			return marshal(c.Table.Family, have.Exprs) == marshal(c.Table.Family, want.exprs)
		}) {
			return false, nil
		}
	}
	sets, err := b.nft.GetSets(want.Table)
	if err != nil {
		return false, err
	}
	return len(sets) == len(want.sets) && !slices.ContainsFunc(want.sets, func(w *set) bool {
		return !slices.ContainsFunc(sets, func(h *nftables.Set) bool {
			return h.Name == w.Name && h.Interval == w.Interval && h.IsMap == w.IsMap && h.HasTimeout == w.HasTimeout && h.Concatenation == w.Concatenation
		})
	}), nil
}

func sameChain(want, have *nftables.Chain) bool {
	if want.Name != have.Name || want.Type != have.Type || (want.Hooknum == nil) != (have.Hooknum == nil) {
		return false
	}
	return want.Hooknum == nil || *want.Hooknum == *have.Hooknum && *want.Priority == *have.Priority && (have.Policy == nil || *have.Policy == nftables.ChainPolicyAccept)
}

func (b *Bridge) makeTable(t table) error {
	b.nft.AddTable(t.Table) // so that there is one to delete
	b.nft.DelTable(t.Table)
	b.nft.AddTable(t.Table)
	for _, s := range t.sets {
		if err := b.nft.AddSet(s.Set, nil); err != nil {
			return err
		}
	}
	for _, c := range t.chains {
		b.nft.AddChain(c.Chain)
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			b.nft.AddRule(&nftables.Rule{Table: t.Table, Chain: c.Chain, Exprs: r.exprs})
		}
	}
	return b.nft.Flush()
}

// syncElements changes the elements of one guest in one transaction, so that no
// packet meets half a policy.
func (b *Bridge) syncElements(s *set) (changed bool, err error) {
	have, err := b.nft.GetSetElements(s.Set)
	if err != nil {
		return false, err
	}
	type change struct{ del, add []nftables.SetElement }
	changes := map[string]*change{}
	of := func(e nftables.SetElement) *change {
		owner := string(e.Key[s.owner : s.owner+4])
		if changes[owner] == nil {
			changes[owner] = &change{}
		}
		return changes[owner]
	}
	known := map[string]bool{}
	for _, e := range have {
		key := elementKey(e)
		known[key] = true
		if _, ok := s.elements[key]; !ok && !b.keeps(s, e) {
			e.Val, e.Timeout = nil, 0
			c := of(e)
			c.del = append(c.del, e)
		}
	}
	for key, e := range s.elements {
		if !known[key] {
			c := of(e)
			c.add = append(c.add, e)
		}
	}
	waiting := 0
	for _, c := range changes {
		for part := range slices.Chunk(c.del, elementsMessage) {
			if err := b.nft.SetDeleteElements(s.Set, part); err != nil {
				return true, err
			}
		}
		for part := range slices.Chunk(c.add, elementsMessage) {
			if err := b.nft.SetAddElements(s.Set, part); err != nil {
				return true, err
			}
		}
		if waiting += len(c.del) + len(c.add); waiting > elementsBatch {
			waiting = 0
			if err := b.nft.Flush(); err != nil {
				return true, err
			}
		}
	}
	return len(changes) > 0, b.nft.Flush()
}

// dropTables removes our tables.
func (b *Bridge) dropTables() error {
	for _, t := range (Config{}).tables() {
		tables, err := b.nft.ListTablesOfFamily(t.Family)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(tables, func(have *nftables.Table) bool { return have.Name == t.Name }) {
			b.nft.DelTable(t.Table)
		}
	}
	return b.nft.Flush()
}

// prefixed reports whether a link's name says that it is ours.
func prefixed(name string) bool {
	return strings.HasPrefix(name, bridgePrefix) || strings.HasPrefix(name, tapPrefix)
}
