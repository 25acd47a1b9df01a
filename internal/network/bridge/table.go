package bridge

import (
	"fmt"
	"net/netip"
	"slices"

	"banger/internal/network/bridge/nft"

	"banger/internal/network"
	"banger/internal/network/policy"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The marks of guests' packets. Packets without them are dropped by the fences, which a flush of
// the ruleset does not remove: the bridge's fence (fence.go) drops packets that were not admitted,
// and the routing rules (route.go) drop packets that were not allowed.
const (
	markAdmitted = 1 << 28
	markAllowed  = 1 << 29
)

const tableName = "banger"

// Places in frames and packets.
const (
	link2 = expr.PayloadBaseLLHeader
	net3  = expr.PayloadBaseNetworkHeader
	port4 = expr.PayloadBaseTransportHeader
)

// addressTypes are the types of a key with a link, a hardware address and what follows.
func addressTypes(more ...nftables.SetDatatype) []nftables.SetDatatype {
	return append([]nftables.SetDatatype{nftables.TypeIFName, nftables.TypeEtherAddr}, more...)
}

// tables declares the rules, which are the same for any number of VMs. Only the sets differ.
//
// learned and allow have the same key. learned has the addresses that the guest was given for names
// in its policy, and alone decides on these.
func (c Config) tables() []nft.Table {
	frames := &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
	packets := &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
	guest := addressTypes(nftables.TypeIPAddr, nftables.TypeInetProto)
	senders := nft.NewSet(frames, "senders", 24, guest...)
	resolvers := nft.NewSet(frames, "resolvers", 32, addressTypes(nftables.TypeEtherAddr, nftables.TypeIPAddr)...)
	sources := nft.NewSet(packets, "sources", 24, guest...)
	guests := nft.NewSet(packets, "guests", 0, nftables.TypeIPAddr)
	destination := []nftables.SetDatatype{
		nftables.TypeMark, nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService,
	}
	allow := nft.NewSet(packets, "allow", 4, destination...)
	allow.Interval, allow.Concatenation = true, true
	learned := nft.NewSet(packets, "learned", 4, destination...)
	learned.Interval, learned.Concatenation, learned.HasTimeout = true, true, true
	learned.IsMap, learned.DataType = true, nftables.TypeVerdict
	for _, p := range c.Ports {
		ip, n := p.Address.AsSlice(), c.network(p.Network)
		for _, proto := range network.Protocols() {
			text := fmt.Sprintf("%s . %s . %s", p.mac(), p.Address, proto)
			rest := slices.Concat(pad(p.mac()), ip, []byte{proto.Number(), 0, 0, 0})
			senders.Add(p.Tap()+" . "+text, nftables.SetElement{Key: slices.Concat(ifname(p.Tap()), rest)})
			sources.Add(n.Link()+" . "+text, nftables.SetElement{Key: slices.Concat(ifname(n.Link()), rest)})
		}
		resolvers.Add(fmt.Sprintf("%s . %s . %s . %s", p.Tap(), p.mac(), p.mac(), p.Address),
			nftables.SetElement{Key: slices.Concat(ifname(p.Tap()), pad(p.mac()), pad(p.mac()), ip)})
		guests.Add(p.Address.String(), nftables.SetElement{Key: ip})
		for _, cell := range c.cells(p) {
			allow.Add(p.text(cell), p.element(cell))
		}
	}
	return []nft.Table{
		{Table: frames, Chains: framesChains(frames, senders, resolvers), Sets: []*nft.Set{senders, resolvers}},
		{
			Table:  packets,
			Chains: packetsChains(packets, sources, guests, learned, allow),
			Sets:   []*nft.Set{sources, guests, allow, learned},
		},
	}
}

// framesChains look at every frame that enters a tap, before the bridge does. The
// host looks up a route before it answers a question for an address, so these have
// both marks.
func framesChains(t *nftables.Table, senders, resolvers *nft.Set) []nft.Chain {
	c := &nftables.Chain{
		Table:    t,
		Name:     "frames",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(-300),
	}
	ip := []expr.Any{
		nft.Payload(link2, 12, 2, 0), nft.Equal(0x08, 0x00),
		nft.Meta(expr.MetaKeyIIFNAME, 0), nft.Payload(link2, 6, 6, 16),
		nft.Payload(net3, 12, 4, 24), nft.Payload(net3, 9, 1, 28),
		nft.In(senders, false), nft.Load(markAdmitted), nft.SetMark(), nft.Verdict(expr.VerdictAccept, ""),
	}
	arp := []expr.Any{
		nft.Payload(link2, 12, 2, 0), nft.Equal(0x08, 0x06), nft.Payload(net3, 0, 6, 0), nft.Equal(0, 1, 8, 0, 6, 4),
		nft.Meta(expr.MetaKeyIIFNAME, 0), nft.Payload(link2, 6, 6, 16),
		nft.Payload(net3, 8, 6, 24), nft.Payload(net3, 14, 4, 32),
		nft.In(resolvers, false), nft.Load(markAdmitted | markAllowed), nft.SetMark(), nft.Verdict(expr.VerdictAccept, ""),
	}
	others := []expr.Any{
		nft.Meta(expr.MetaKeyIIFNAME, 0), nft.Equal([]byte(tapPrefix)...), nft.Verdict(expr.VerdictDrop, ""),
	}
	const asker = "iifname . ether saddr . arp saddr ether . arp saddr ip"
	return []nft.Chain{{Chain: c, Rules: []nft.Rule{
		{
			Text:  "ether type ip iifname . ether saddr . ip saddr . ip protocol @senders meta mark set 0x10000000 accept",
			Exprs: ip,
		},
		{
			Text:  "ether type arp arp htype 1 arp ptype ip " + asker + " @resolvers meta mark set 0x30000000 accept",
			Exprs: arp,
		},
		{Text: `iifname "bgt*" drop`, Exprs: others},
	}}}
}

// packetsChains look at packets before they are routed, so that the mark that they
// set decides whether they are.
func packetsChains(t *nftables.Table, sources, guests, learned, allow *nft.Set) []nft.Chain {
	before := &nftables.Chain{
		Table:    t,
		Name:     "prerouting",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityFilter,
	}
	after := &nftables.Chain{
		Table:    t,
		Name:     "postrouting",
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	}
	guest := &nftables.Chain{Table: t, Name: "guest"}
	pass := &nftables.Chain{Table: t, Name: "pass"}
	flows := []expr.Any{
		nft.State(), nft.Mask(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, 0), nft.Unequal(nft.Native(0)...),
		nft.Verdict(expr.VerdictGoto, "pass"),
	}
	fromBridges := []expr.Any{
		nft.Meta(expr.MetaKeyIIFNAME, 0), nft.Equal([]byte(bridgePrefix)...), nft.Verdict(expr.VerdictGoto, "guest"),
	}
	toGuests := append([]expr.Any{nft.Payload(net3, 16, 4, 0), nft.In(guests, false)}, flows...)
	markAllow := []expr.Any{
		nft.Meta(expr.MetaKeyMARK, 0), nft.Mask(^uint32(markAllowed), markAllowed), nft.SetMark(),
		nft.Verdict(expr.VerdictAccept, ""),
	}
	masquerade := []expr.Any{
		nft.Meta(expr.MetaKeyMARK, 0), nft.Mask(markAllowed, 0), nft.Unequal(nft.Native(0)...),
		nft.Meta(expr.MetaKeyOIFNAME, 0), nft.Unequal([]byte(bridgePrefix)...), &expr.Masq{},
	}
	return []nft.Chain{
		{Chain: before, Rules: []nft.Rule{
			{Text: `iifname "bgr*" goto guest`, Exprs: fromBridges},
			{Text: "ip daddr @guests ct state established,related goto pass", Exprs: toGuests},
		}},
		{Chain: guest, Rules: guestRules(sources, learned, allow, flows)},
		{Chain: pass, Rules: []nft.Rule{{Text: "meta mark set meta mark | 0x20000000 accept", Exprs: markAllow}}},
		{Chain: after, Rules: []nft.Rule{
			{Text: `meta mark & 0x20000000 != 0 oifname != "bgr*" masquerade`, Exprs: masquerade},
		}},
	}
}

// guestRules decide on packets of guests. Flows lets packets of known flows pass.
func guestRules(sources, learned, allow *nft.Set, flows []expr.Any) []nft.Rule {
	foreign := []expr.Any{
		nft.Meta(expr.MetaKeyIIFNAME, 0), nft.Payload(link2, 6, 6, 16), nft.Payload(net3, 12, 4, 24),
		nft.Meta(expr.MetaKeyL4PROTO, 28), nft.In(sources, true), nft.Verdict(expr.VerdictDrop, ""),
	}
	destination := []expr.Any{
		nft.DestinationType(), nft.Payload(net3, 12, 4, 4), nft.Payload(net3, 16, 4, 8),
		nft.Meta(expr.MetaKeyL4PROTO, 12), nft.Payload(port4, 2, 2, 16),
	}
	refuse := []expr.Any{
		&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: logGroup, Snaplen: logSnaplen},
		nft.Verdict(expr.VerdictDrop, ""),
	}
	const tuple = "fib daddr type . ip saddr . ip daddr . meta l4proto . th dport"
	return []nft.Rule{
		{Text: "iifname . ether saddr . ip saddr . meta l4proto != @sources drop", Exprs: foreign},
		{Text: "ct state established,related goto pass", Exprs: flows},
		{Text: tuple + " vmap @learned", Exprs: slices.Concat(destination, []expr.Any{nft.VerdictOf(learned)})},
		{
			Text:  tuple + " @allow goto pass",
			Exprs: slices.Concat(destination, []expr.Any{nft.In(allow, false), nft.Verdict(expr.VerdictGoto, "pass")}),
		},
		{Text: fmt.Sprintf("log group %d snaplen %d drop", logGroup, logSnaplen), Exprs: refuse},
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
		return slices.Concat(nft.Native(kind), p.Address.AsSlice(), dst.AsSlice(), []byte{proto, 0, 0, 0},
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
