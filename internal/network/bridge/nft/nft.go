// Package nft makes tables of nftables in the kernel as they are declared, and touches nothing that is
// as declared already.
//
// The package must not know what the tables are for: policies, VMs and networks are the caller's.
package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// One batch must fit into the socket's buffer, and one message of elements into a
// netlink attribute of 64 KiB.
const (
	socketBuffer    = 16 << 20
	elementsMessage = 300
	elementsBatch   = 4096
)

// Conn is a connection to the nftables of a network namespace.
type Conn struct{ *nftables.Conn }

// Open returns a connection to the namespace of a descriptor. CloseLasting ends it.
func Open(ns int) (*Conn, error) {
	buffers := func(c *netlink.Conn) error {
		if err := c.SetWriteBuffer(socketBuffer); err != nil {
			return err
		}
		return c.SetReadBuffer(socketBuffer)
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(ns), nftables.WithSockOptions(buffers))
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}

// Keep reports whether an element stays that is in the kernel and not declared.
type Keep func(s *Set, e nftables.SetElement) bool

// Sync makes the tables as declared and reports whether it had to change anything. A table whose
// rules or sets are not as declared is replaced in one transaction; else only elements change.
func (n *Conn) Sync(want []Table, keep Keep) (changed bool, err error) {
	for _, t := range want {
		same, err := n.sameShape(t)
		if err != nil {
			return changed, err
		}
		if !same {
			changed = true
			if err := n.make(t); err != nil {
				return changed, fmt.Errorf("make table %s: %w", t.Name, err)
			}
		}
		for _, s := range t.Sets {
			did, err := n.SyncElements(s, keep)
			if err != nil {
				return changed, fmt.Errorf("fill set %s: %w", s.Name, err)
			}
			changed = changed || did
		}
	}
	return changed, nil
}

// sameShape compares chains, rules and the names and flags of sets.
func (n *Conn) sameShape(want Table) (bool, error) {
	tables, err := n.ListTablesOfFamily(want.Family)
	same := func(t *nftables.Table) bool { return t.Name == want.Name && t.Flags == 0 }
	if err != nil || !slices.ContainsFunc(tables, same) {
		return false, err
	}
	all, err := n.ListChainsOfTableFamily(want.Family)
	if err != nil {
		return false, err
	}
	all = slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != want.Name })
	if len(all) != len(want.Chains) {
		return false, nil
	}
	for _, c := range want.Chains {
		if !slices.ContainsFunc(all, func(have *nftables.Chain) bool { return sameChain(c.Chain, have) }) {
			return false, nil
		}
		rules, err := n.GetRules(want.Table, c.Chain)
		if err != nil {
			return false, err
		}
		if !slices.EqualFunc(rules, c.Rules, func(have *nftables.Rule, want Rule) bool {
			return marshal(c.Table.Family, have.Exprs) == marshal(c.Table.Family, want.Exprs)
		}) {
			return false, nil
		}
	}
	sets, err := n.GetSets(want.Table)
	if err != nil {
		return false, err
	}
	return len(sets) == len(want.Sets) && !slices.ContainsFunc(want.Sets, func(w *Set) bool {
		return !slices.ContainsFunc(sets, func(h *nftables.Set) bool {
			return h.Name == w.Name && h.Interval == w.Interval && h.IsMap == w.IsMap &&
				h.HasTimeout == w.HasTimeout && h.Concatenation == w.Concatenation
		})
	}), nil
}

func sameChain(want, have *nftables.Chain) bool {
	if want.Name != have.Name || want.Type != have.Type || (want.Hooknum == nil) != (have.Hooknum == nil) {
		return false
	}
	if want.Hooknum == nil {
		return true
	}
	accepts := have.Policy == nil || *have.Policy == nftables.ChainPolicyAccept
	return *want.Hooknum == *have.Hooknum && *want.Priority == *have.Priority && accepts
}

// make replaces a table.
func (n *Conn) make(t Table) error {
	n.AddTable(t.Table) // so that there is one to delete
	n.DelTable(t.Table)
	n.AddTable(t.Table)
	for _, s := range t.Sets {
		if err := n.AddSet(s.Set, nil); err != nil {
			return err
		}
	}
	for _, c := range t.Chains {
		n.AddChain(c.Chain)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			n.AddRule(&nftables.Rule{Table: t.Table, Chain: c.Chain, Exprs: r.Exprs})
		}
	}
	return n.Flush()
}

// SyncElements makes the elements of a set as declared and reports whether it had to change
// anything. It changes the elements of one owner in one transaction, so that no packet meets half
// of them.
func (n *Conn) SyncElements(s *Set, keep Keep) (changed bool, err error) {
	have, err := n.GetSetElements(s.Set)
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
		if _, ok := s.elements[key]; !ok && !keep(s, e) {
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
			if err := n.SetDeleteElements(s.Set, part); err != nil {
				return true, err
			}
		}
		for part := range slices.Chunk(c.add, elementsMessage) {
			if err := n.SetAddElements(s.Set, part); err != nil {
				return true, err
			}
		}
		if waiting += len(c.del) + len(c.add); waiting > elementsBatch {
			waiting = 0
			if err := n.Flush(); err != nil {
				return true, err
			}
		}
	}
	return len(changes) > 0, n.Flush()
}

// Drop removes the tables with the names and families of these.
func (n *Conn) Drop(tables []Table) error {
	for _, t := range tables {
		there, err := n.ListTablesOfFamily(t.Family)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(there, func(have *nftables.Table) bool { return have.Name == t.Name }) {
			n.DelTable(t.Table)
		}
	}
	return n.Flush()
}
