package bridge

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"banger/internal/network"
	"banger/internal/network/policy"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The marks that packets of guests carry. Without them the fences, which no flush
// of a ruleset removes, drop the packets: the bridge's (fence.go) those that
// were not admitted, the routing rules (route.go) those that were not allowed.
const (
	markAdmitted = 1 << 28
	markAllowed  = 1 << 29
)

const tableName = "banger"

// table is one declared table of nftables.
type table struct {
	*nftables.Table
	chains []chain
	sets   []*set
}

type chain struct {
	*nftables.Chain
	rules []nftRule
}

// nftRule is a rule, and what nft(8) would print for it.
type nftRule struct {
	text  string
	exprs []expr.Any
}

type set struct {
	*nftables.Set
	elements map[string]nftables.SetElement // by what identifies them
	texts    map[string]string
	owner    int // where in a key the guest's address is
}

func (s *set) add(text string, e nftables.SetElement) {
	s.elements[elementKey(e)], s.texts[elementKey(e)] = e, text
}

// elementKey tells elements apart. Of a verdict only dropping is told from passing.
func elementKey(e nftables.SetElement) string {
	end := e.KeyEnd
	if len(end) == 0 {
		end = e.Key
	}
	drop := e.VerdictData != nil && e.VerdictData.Kind == expr.VerdictDrop
	if e.VerdictData == nil && len(e.Val) >= 8 { // as the kernel tells it: an attribute with the code
		drop = binary.BigEndian.Uint32(e.Val[4:]) == uint32(expr.VerdictDrop)
	}
	return fmt.Sprintf("%x-%x-%v", e.Key, end, drop)
}

// register returns the number of the register at an offset, as the kernel tells it
// (nft_dump_register).
func register(offset uint32) uint32 {
	if offset%16 == 0 {
		return unix.NFT_REG_1 + offset/16
	}
	return unix.NFT_REG32_00 + offset/4
}

func meta(key expr.MetaKey, at uint32) expr.Any { return &expr.Meta{Key: key, Register: register(at)} }

func payload(base expr.PayloadBase, offset, size, at uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, DestRegister: register(at), Base: base, Offset: offset, Len: size}
}

func equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register(0), Data: data}
}

func in(s *set, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: register(0), SetName: s.Name, Invert: invert}
}

func always(kind expr.VerdictKind, chain string) expr.Any {
	return &expr.Verdict{Kind: kind, Chain: chain}
}

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// Places in frames and packets.
const (
	link2 = expr.PayloadBaseLLHeader
	net3  = expr.PayloadBaseNetworkHeader
	port4 = expr.PayloadBaseTransportHeader
)

// tables declares the rules, which are the same for any number of VMs; what differs
// is in the sets.
//
// Learned and allow have the same key. Learned has the addresses that the guest was
// told for names of which its policy speaks, and decides wholly on these.
func (c Config) tables() []table {
	frames := &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
	packets := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	senders := newSet(frames, "senders", 24, nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr, nftables.TypeInetProto)
	resolvers := newSet(frames, "resolvers", 32, nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeEtherAddr, nftables.TypeIPAddr)
	sources := newSet(packets, "sources", 24, nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr, nftables.TypeInetProto)
	guests := newSet(packets, "guests", 0, nftables.TypeIPAddr)
	destination := []nftables.SetDatatype{nftables.TypeMark, nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService}
	allow := newSet(packets, "allow", 4, destination...)
	allow.Interval, allow.Concatenation = true, true
	learned := newSet(packets, "learned", 4, destination...)
	learned.Interval, learned.Concatenation, learned.HasTimeout, learned.IsMap, learned.DataType = true, true, true, true, nftables.TypeVerdict
	for _, p := range c.Ports {
		ip, n := p.Address.AsSlice(), c.network(p.Network)
		for _, proto := range network.Protocols() {
			who := fmt.Sprintf("%s . %s . %s", p.mac(), p.Address, proto)
			last := []byte{proto.Number(), 0, 0, 0}
			senders.add(p.Tap()+" . "+who, nftables.SetElement{Key: slices.Concat(ifname(p.Tap()), pad(p.mac()), ip, last)})
			sources.add(n.Link()+" . "+who, nftables.SetElement{Key: slices.Concat(ifname(n.Link()), pad(p.mac()), ip, last)})
		}
		resolvers.add(fmt.Sprintf("%s . %s . %s . %s", p.Tap(), p.mac(), p.mac(), p.Address), nftables.SetElement{Key: slices.Concat(ifname(p.Tap()), pad(p.mac()), pad(p.mac()), ip)})
		guests.add(p.Address.String(), nftables.SetElement{Key: ip})
		for _, cell := range c.cells(p) {
			allow.add(p.text(cell), p.element(cell))
		}
	}
	return []table{
		{frames, framesChains(frames, senders, resolvers), []*set{senders, resolvers}},
		{packets, packetsChains(packets, sources, guests, learned, allow), []*set{sources, guests, allow, learned}},
	}
}

func newSet(t *nftables.Table, name string, owner int, types ...nftables.SetDatatype) *set {
	key := types[0]
	if len(types) > 1 {
		key = nftables.MustConcatSetType(types...)
	}
	return &set{&nftables.Set{Table: t, Name: name, KeyType: key}, map[string]nftables.SetElement{}, map[string]string{}, owner}
}

// framesChains look at every frame that enters a tap, before the bridge does. The
// host looks up a route before it answers a question for an address, so these have
// both marks.
func framesChains(t *nftables.Table, senders, resolvers *set) []chain {
	c := &nftables.Chain{Table: t, Name: "frames", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-300)}
	admit := func(mark uint32) []expr.Any {
		return []expr.Any{&expr.Immediate{Register: register(0), Data: native(mark)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register(0)}, always(expr.VerdictAccept, "")}
	}
	ip := []expr.Any{payload(link2, 12, 2, 0), equal(0x08, 0x00), meta(expr.MetaKeyIIFNAME, 0), payload(link2, 6, 6, 16),
		payload(net3, 12, 4, 24), payload(net3, 9, 1, 28), in(senders, false)}
	arp := []expr.Any{payload(link2, 12, 2, 0), equal(0x08, 0x06), payload(net3, 0, 6, 0), equal(0, 1, 8, 0, 6, 4), meta(expr.MetaKeyIIFNAME, 0),
		payload(link2, 6, 6, 16), payload(net3, 8, 6, 24), payload(net3, 14, 4, 32), in(resolvers, false)}
	return []chain{{c, []nftRule{
		{"ether type ip iifname . ether saddr . ip saddr . ip protocol @senders meta mark set 0x10000000 accept", slices.Concat(ip, admit(markAdmitted))},
		{"ether type arp arp htype 1 arp ptype ip iifname . ether saddr . arp saddr ether . arp saddr ip @resolvers meta mark set 0x30000000 accept", slices.Concat(arp, admit(markAdmitted|markAllowed))},
		{`iifname "bgt*" drop`, []expr.Any{meta(expr.MetaKeyIIFNAME, 0), equal([]byte(tapPrefix)...), always(expr.VerdictDrop, "")}},
	}}}
}

// packetsChains look at packets before they are routed, so that the mark that they
// set decides whether they are.
func packetsChains(t *nftables.Table, sources, guests, learned, allow *set) []chain {
	before := &nftables.Chain{Table: t, Name: "prerouting", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityFilter}
	guest := &nftables.Chain{Table: t, Name: "guest"}
	pass := &nftables.Chain{Table: t, Name: "pass"}
	after := &nftables.Chain{Table: t, Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource}
	flows := []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: register(0)},
		&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: 4, Mask: native(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register(0), Data: native(0)}, always(expr.VerdictGoto, "pass")}
	destination := []expr.Any{&expr.Fib{Register: register(0), ResultADDRTYPE: true, FlagDADDR: true}, payload(net3, 12, 4, 4), payload(net3, 16, 4, 8),
		meta(expr.MetaKeyL4PROTO, 12), payload(port4, 2, 2, 16)}
	ours := []expr.Any{meta(expr.MetaKeyIIFNAME, 0), equal([]byte(bridgePrefix)...)}
	const tuple = "fib daddr type . ip saddr . ip daddr . meta l4proto . th dport"
	return []chain{
		{before, []nftRule{
			{`iifname "bgr*" goto guest`, append(ours, always(expr.VerdictGoto, "guest"))},
			{"ip daddr @guests ct state established,related goto pass", slices.Concat([]expr.Any{payload(net3, 16, 4, 0), in(guests, false)}, flows)},
		}},
		{guest, []nftRule{
			{"iifname . ether saddr . ip saddr . meta l4proto != @sources drop", []expr.Any{meta(expr.MetaKeyIIFNAME, 0), payload(link2, 6, 6, 16),
				payload(net3, 12, 4, 24), meta(expr.MetaKeyL4PROTO, 28), in(sources, true), always(expr.VerdictDrop, "")}},
			{"ct state established,related goto pass", flows},
			{tuple + " vmap @learned", append(slices.Clone(destination), &expr.Lookup{SourceRegister: register(0), SetName: learned.Name, IsDestRegSet: true})},
			{tuple + " @allow goto pass", append(slices.Clone(destination), in(allow, false), always(expr.VerdictGoto, "pass"))},
			{fmt.Sprintf("log group %d snaplen %d drop", logGroup, logSnaplen), []expr.Any{
				&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: logGroup, Snaplen: logSnaplen}, always(expr.VerdictDrop, "")}},
		}},
		{pass, []nftRule{{"meta mark set meta mark | 0x20000000 accept", []expr.Any{meta(expr.MetaKeyMARK, 0),
			&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: 4, Mask: native(^uint32(markAllowed)), Xor: native(markAllowed)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register(0)}, always(expr.VerdictAccept, "")}}}},
		{after, []nftRule{{`meta mark & 0x20000000 != 0 oifname != "bgr*" masquerade`, []expr.Any{meta(expr.MetaKeyMARK, 0),
			&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: 4, Mask: native(markAllowed), Xor: native(0)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register(0), Data: native(0)}, meta(expr.MetaKeyOIFNAME, 0),
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register(0), Data: []byte(bridgePrefix)}, &expr.Masq{}}}}},
	}
}

func ifname(s string) []byte { return append([]byte(s), make([]byte, 16-len(s))...) }

func pad(mac []byte) []byte { return append(slices.Clone(mac), 0, 0) }

// element returns the cell of p in the sets learned and allow.
func (p Port) element(c policy.Cell) nftables.SetElement {
	kind := uint32(unix.RTN_UNICAST)
	if c.Local {
		kind = unix.RTN_LOCAL
	}
	key := func(dst netip.Addr, proto uint8, port uint16) []byte {
		return slices.Concat(native(kind), p.Address.AsSlice(), dst.AsSlice(), []byte{proto, 0, 0, 0},
			binaryutil.BigEndian.PutUint16(port), []byte{0, 0})
	}
	return nftables.SetElement{
		Key:    key(c.First, c.Protocols[0], c.Ports.First),
		KeyEnd: key(c.Last, c.Protocols[1], c.Ports.Last),
	}
}

// text returns the cell of p as nft(8) would write it.
func (p Port) text(c policy.Cell) string {
	kind := map[bool]string{false: "unicast", true: "local"}[c.Local]
	return fmt.Sprintf("%s . %s . %s-%s . %d-%d . %s",
		kind, p.Address, c.First, c.Last, c.Protocols[0], c.Protocols[1], c.Ports)
}

// text writes the tables about as nft(8) would, for people and tests.
func text(tables []table) string {
	var b strings.Builder
	for _, t := range tables {
		fmt.Fprintf(&b, "table %s %s {\n", map[nftables.TableFamily]string{nftables.TableFamilyBridge: "bridge", nftables.TableFamilyIPv4: "ip"}[t.Family], t.Name)
		for _, s := range t.sets {
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
		for _, c := range t.chains {
			fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
			if c.Type != "" {
				fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Type, map[nftables.ChainHook]string{*nftables.ChainHookPrerouting: "prerouting", *nftables.ChainHookPostrouting: "postrouting"}[*c.Hooknum], *c.Priority)
			}
			for _, r := range c.rules {
				fmt.Fprintf(&b, "\t\t%s\n", r.text)
			}
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// marshal returns what the kernel is told of a rule, to compare rules.
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
