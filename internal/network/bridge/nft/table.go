package nft

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Table is one declared table of nftables.
type Table struct {
	*nftables.Table
	Chains []Chain
	Sets   []*Set
}

// Chain is a declared chain with all of its rules.
type Chain struct {
	*nftables.Chain
	Rules []Rule
}

// Rule is a declared rule, and what nft(8) would print for it.
type Rule struct {
	Text  string
	Exprs []expr.Any
}

// Set is a declared set or map with its elements.
type Set struct {
	*nftables.Set
	elements map[string]nftables.SetElement // by what identifies them
	texts    map[string]string
	owner    int // where in a key the owner's address begins
}

// NewSet declares an empty set of a table, whose keys consist of the types. The elements of one
// owner, whose IPv4 address is at the offset owner in their keys, change in one transaction.
func NewSet(t *nftables.Table, name string, owner int, types ...nftables.SetDatatype) *Set {
	key := types[0]
	if len(types) > 1 {
		key = nftables.MustConcatSetType(types...)
	}
	return &Set{
		Set:      &nftables.Set{Table: t, Name: name, KeyType: key},
		elements: map[string]nftables.SetElement{},
		texts:    map[string]string{},
		owner:    owner,
	}
}

// Add declares an element, which nft(8) would print as text.
func (s *Set) Add(text string, e nftables.SetElement) {
	s.elements[elementKey(e)], s.texts[elementKey(e)] = e, text
}

// elementKey identifies an element. It includes only whether a verdict drops.
func elementKey(e nftables.SetElement) string {
	end := e.KeyEnd
	if len(end) == 0 {
		end = e.Key
	}
	drop := e.VerdictData != nil && e.VerdictData.Kind == expr.VerdictDrop
	if e.VerdictData == nil && len(e.Val) >= 8 { // in the kernel's form: an attribute with the code
		drop = binary.BigEndian.Uint32(e.Val[4:]) == uint32(expr.VerdictDrop)
	}
	return fmt.Sprintf("%x-%x-%v", e.Key, end, drop)
}

var families = map[nftables.TableFamily]string{
	nftables.TableFamilyBridge: "bridge",
	nftables.TableFamilyIPv4:   "ip",
}

var hooks = map[nftables.ChainHook]string{
	*nftables.ChainHookPrerouting:  "prerouting",
	*nftables.ChainHookPostrouting: "postrouting",
}

// Text writes the tables about as nft(8) would, for people and tests.
func Text(tables []Table) string {
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "table %s %s {\n", families[t.Family], t.Name)
		for _, s := range t.Sets {
			fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.Name, s.KeyType.Name)
			lines := []string{}
			for _, line := range s.texts {
				lines = append(lines, line)
			}
			slices.Sort(lines)
			for _, line := range lines {
				fmt.Fprintf(&b, "\t\t%s\n", line)
			}
			b.WriteString("\t}\n")
		}
		for _, c := range t.Chains {
			fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
			if c.Type != "" {
				fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Type, hooks[*c.Hooknum], *c.Priority)
			}
			for _, r := range c.Rules {
				fmt.Fprintf(&b, "\t\t%s\n", r.Text)
			}
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// marshal returns the kernel's form of a rule, to compare rules.
func marshal(family nftables.TableFamily, exprs []expr.Any) string {
	var b strings.Builder
	for _, e := range exprs {
		data, err := expr.Marshal(byte(family), e)
		if err != nil {
			return err.Error() // equals no rule
		}
		b.WriteString(hex.EncodeToString(data) + "\n")
	}
	return b.String()
}
