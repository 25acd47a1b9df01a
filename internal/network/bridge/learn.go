package bridge

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"banger/internal/network/bridge/nft"

	"banger/internal/network/policy"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"banger"
)

// learnedNames are the names for which one VM was given addresses: by address, the time until which
// each name is valid. Names stay after that time as long as there is room, because flows that began
// with them continue.
type learnedNames struct {
	names map[netip.Addr]map[string]time.Time
}

// maxTold bounds the addresses of one VM.
const maxTold = 4096

// Learn records that the VM is about to be given addr for a name. The resolver must call it before
// it answers, and must not answer if Learn fails: otherwise a rule that denies a name could not be
// enforced. name is in lower case and without a final dot.
func (b *Bridge) Learn(ctx context.Context, id, name string, addr netip.Addr, ttl time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.config.Ports, func(p Port) bool { return p.ID == id })
	if i < 0 {
		return banger.Errorf(banger.CodeNotFound, "VM %s has no port", id)
	}
	p := b.config.Ports[i]
	if !addr.Is4() {
		return nil // guests have no IPv6
	}
	matters := policy.NamesMatter(p.Policy, []string{name})
	t, ok := b.learned[id]
	if !ok {
		t = learnedNames{map[netip.Addr]map[string]time.Time{}}
		b.learned[id] = t
	}
	now := time.Now()
	if t.names[addr] == nil && len(t.names) >= maxTold {
		maps.DeleteFunc(t.names, func(_ netip.Addr, names map[string]time.Time) bool { return len(valid(names, now)) == 0 })
	}
	fullNames := len(t.names[addr]) >= policy.MaxNames && t.names[addr][name].IsZero()
	if t.names[addr] == nil && len(t.names) >= maxTold || fullNames {
		if !matters {
			return nil
		}
		return banger.Errorf(banger.CodeUnavailable, "VM %s has learned too many addresses to hold %s to its policy", id,
			name)
	}
	if t.names[addr] == nil {
		t.names[addr] = map[string]time.Time{}
	}
	until := now.Add(policy.Lifetime(ttl))
	if t.names[addr][name].Before(until) {
		t.names[addr][name] = until
	}
	if !matters {
		return nil // but a later policy may contain it
	}
	if err := b.syncLearned(ctx, now); err != nil {
		return failed("learn a name", err)
	}
	return nil
}

func valid(names map[string]time.Time, now time.Time) []string {
	var out []string
	for name, until := range names {
		if until.After(now) {
			out = append(out, name)
		}
	}
	return out
}

// syncLearned brings only the set learned up to date.
func (b *Bridge) syncLearned(ctx context.Context, now time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tables := Config{Networks: b.config.Networks}.tables()
	b.addLearned(tables, now)
	for _, s := range tables[1].Sets {
		if s.Name == "learned" {
			_, err := b.nft.SyncElements(s, b.keeps)
			return err
		}
	}
	return nil
}

// addLearned declares the elements of all valid names. The kernel drops an element when the last
// name of its address has expired. If one of several names has expired, Watch updates the element.
func (b *Bridge) addLearned(tables []nft.Table, now time.Time) {
	for _, s := range tables[1].Sets {
		if s.Name != "learned" {
			continue
		}
		for _, p := range b.config.Ports {
			for addr, names := range b.learned[p.ID].names {
				b.addAddress(s, p, addr, names, now)
			}
		}
	}
}

func (b *Bridge) addAddress(s *nft.Set, p Port, addr netip.Addr, names map[string]time.Time, now time.Time) {
	list := valid(names, now)
	if len(list) == 0 || b.config.closed(addr) {
		return
	}
	var last time.Time
	for _, name := range list {
		if names[name].After(last) {
			last = names[name]
		}
	}
	for _, c := range policy.CompileNames(p.Policy, addr, list) {
		e := p.element(c)
		e.Timeout, e.VerdictData = time.Until(last), &expr.Verdict{Kind: expr.VerdictDrop}
		if c.Allow {
			e.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: "pass"}
		}
		s.Add(p.text(c), e)
	}
}

// keeps reports whether an element stays although it is not declared: an earlier Bridge learned it
// for a VM whose policy has not changed since.
func (b *Bridge) keeps(s *nft.Set, e nftables.SetElement) bool {
	if s.Name != "learned" {
		return false
	}
	for _, p := range b.config.Ports {
		if string(e.Key[4:8]) == string(p.Address.AsSlice()) {
			_, known := b.learned[p.ID]
			return !known && !b.changed[p.Address]
		}
	}
	return false
}

// forgetPorts drops the names of VMs that are no longer there.
func (b *Bridge) forgetPorts() {
	maps.DeleteFunc(b.learned, func(id string, _ learnedNames) bool {
		return !slices.ContainsFunc(b.config.Ports, func(p Port) bool { return p.ID == id })
	})
}

// nextExpiry returns when a name expires next.
func (b *Bridge) nextExpiry(now time.Time) (time.Time, bool) {
	var next time.Time
	for _, t := range b.learned {
		for _, names := range t.names {
			for _, until := range names {
				if until.After(now) && (next.IsZero() || until.Before(next)) {
					next = until
				}
			}
		}
	}
	return next, !next.IsZero()
}
