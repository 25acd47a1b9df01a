package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/ipaddr"
	"banger/internal/network"
	"banger/internal/testing/networktest"
)

func TestMain(m *testing.M) { networktest.Main(m, false) }

// TestLearnedNamesAreBounded lets a guest be told many names for one address, and then more
// addresses than are remembered.
func TestLearnedNamesAreBounded(t *testing.T) {
	const names = 17
	g := NewGuard(banger.Policy{Default: banger.Allow}, nil)
	for i := range names {
		g.Learn(ipaddr.FromNumber(8<<24+1), fmt.Sprintf("%d.example", i), 9999*time.Second, time.Now())
	}
	for i := range 2 * maxLearned { // one name each
		g.Learn(ipaddr.FromNumber(9<<24+uint32(i)), "one.example", time.Hour, time.Now())
	}
	if len(g.learned) > maxLearned || g.remembered != maxLearned {
		t.Errorf("%d addresses and %d names are remembered", len(g.learned), g.remembered)
	}
	if have := g.namesFor(ipaddr.FromNumber(8<<24+1), time.Now()); len(have) != names {
		t.Errorf("of the first address %d names are known", len(have))
	}
	g.Forget(time.Now().Add(MaxTTL))
	if len(g.learned) > 0 || g.remembered != 0 {
		t.Errorf("%d addresses and %d names are remembered when all are old", len(g.learned), g.remembered)
	}
}

// TestADecisionIsBounded refuses an address that has as many and as long names as can be.
func TestADecisionIsBounded(t *testing.T) {
	var told []banger.Decision
	g := NewGuard(banger.Policy{Default: banger.Deny}, func(d banger.Decision) { told = append(told, d) })
	addr := ipaddr.FromNumber(8<<24 + 1)
	for i := range MaxNames {
		g.Learn(addr, fmt.Sprintf("%d.%s", i, strings.Repeat("a.", 120)), time.Hour, time.Now())
	}
	key := network.FlowKey{Protocol: network.TCP, Source: 1, Destination: netip.AddrPortFrom(addr, 80)}
	if _, _, ok := g.Admit(key); ok {
		t.Error("it is let through")
	}
	g.RefuseName([]string{strings.Repeat("a.", 5000)}, 1, "deny any")
	for _, d := range told {
		if len(d.Name) > maxName+len("…") || d.Time.IsZero() {
			t.Errorf("a decision has a name of %d bytes, and the time %v", len(d.Name), d.Time)
		}
	}
	if len(told) != 2 {
		t.Errorf("%d decisions are told", len(told))
	}
}
