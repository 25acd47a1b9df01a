package banger

import (
	"net/netip"
	"strings"
)

// HostGateway stands for the address of the guest's gateway, where the guest reaches services of the host if the policy
// allows it.
const HostGateway = "host-gateway"

// HostNames are the names of the guest's gateway, which the guest can look up if its policy lets it reach the host.
var HostNames = []string{"host.banger.internal", "host.docker.internal"}

// HostEntry is a line of the guest's /etc/hosts.
type HostEntry struct {
	Name    string `json:"name"`
	Address string `json:"address"` // an IP address, or HostGateway
}

// Check returns an *Error of CodeInvalid if the name or the address is not valid.
func (e HostEntry) Check() error {
	if len(e.Name) == 0 || len(e.Name) > 253 || strings.Trim(strings.ToLower(e.Name),
		"abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return Errorf(CodeInvalid, "%.80q is not a host name", e.Name)
	}
	if a, err := netip.ParseAddr(e.Address); e.Address != HostGateway && (err != nil || a.Zone() != "") {
		return Errorf(CodeInvalid, "%.80q, the address of %s, is not an IP address", e.Address, e.Name).
			WithHint("%s stands for the guest's gateway", HostGateway)
	}
	return nil
}

// checkNames checks the fields of a Spec about the names that the guest can look up.
func (s *Spec) checkNames() error {
	for _, e := range s.Hosts {
		if err := e.Check(); err != nil {
			return err
		}
	}
	for _, a := range s.DNS {
		if ip, err := netip.ParseAddr(a); err != nil || !ip.Is4() {
			return Errorf(CodeInvalid, "dns has %.80q, but must be an address of IPv4", a)
		}
	}
	for _, domain := range s.DNSSearch {
		if (HostEntry{domain, HostGateway}).Check() != nil {
			return Errorf(CodeInvalid, "dns_search has %.80q, which is not a domain", domain)
		}
	}
	if len(s.DNS) == 0 {
		return nil
	}
	if s.Network == NetworkNone {
		return Errorf(CodeInvalid, "a VM without a network asks no name server").WithHint("leave out --dns or --network none")
	}
	for _, r := range s.Policy.Rules {
		if r.IsName() {
			return Errorf(CodeInvalid, "the rule %q is about a name, which works only with banger's own name server", r).
				WithHint("leave out --dns, or give the rule an address")
		}
	}
	return nil
}
