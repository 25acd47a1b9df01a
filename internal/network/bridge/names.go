package bridge

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	vmnames "banger/internal/dns"
)

// visibleVMs are the VMs whose names one VM may know: those of its network if they see each
// other, and itself. They implement the Directory of package dns.
type visibleVMs struct {
	network string // "" if the VM has no port
	ports   []Port
	asked   func(id string)
}

// visibleTo returns the VMs that are visible to the VM with that id.
func (h *Host) visibleTo(id string) visibleVMs {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := visibleVMs{asked: h.Asked}
	for _, p := range h.config.Ports {
		if p.ID == id {
			out.network = p.Network
		}
	}
	isolated := h.config.network(out.network).Isolated
	for _, p := range h.config.Ports {
		if p.Network == out.network && p.Name != "" && (!isolated || p.ID == id) {
			out.ports = append(out.ports, p)
		}
	}
	return out
}

// answer answers a question about a visible VM, or about any name in the domain of VMs. It returns
// nil for other questions. The name of a visible VM needs no domain.
func (n visibleVMs) answer(q *dns.Msg, name string) *dns.Msg {
	if n.network == "" {
		return new(dns.Msg).SetRcode(q, dns.RcodeRefused)
	}
	zone := vmnames.Zone{Directory: n}
	if dns.IsSubDomain(vmnames.Domain+".", dns.Fqdn(name)) { // by labels
		return zone.Answer(q)
	}
	for _, p := range n.ports {
		if reverse, _ := dns.ReverseAddr(p.Address.String()); strings.TrimSuffix(reverse, ".") == name {
			return zone.Answer(q)
		}
	}
	if _, ok := n.Address(name, ""); !ok {
		return nil
	}
	long := q.Copy()
	long.Question[0].Name = name + "." + vmnames.Domain + "."
	r := zone.Answer(long)
	r.Question = q.Question
	for _, rr := range r.Answer {
		rr.Header().Name = q.Question[0].Name
	}
	return r
}

// Address implements dns.Directory.
func (n visibleVMs) Address(vm, network string) (netip.Addr, bool) {
	for _, p := range n.ports {
		if p.Name == vm && (network == "" || network == p.Network) {
			if n.asked != nil {
				n.asked(p.ID)
			}
			return p.Address, true
		}
	}
	return netip.Addr{}, false
}

// HasNetwork implements dns.Directory.
func (n visibleVMs) HasNetwork(network string) bool { return network == n.network && len(n.ports) > 0 }

// Name implements dns.Directory.
func (n visibleVMs) Name(addr netip.Addr) (vm, network string, ok bool) {
	for _, p := range n.ports {
		if p.Address == addr {
			return p.Name, p.Network, true
		}
	}
	return "", "", false
}
