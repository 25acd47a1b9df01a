package banger

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a rule or a policy does with a flow.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Words that a rule may have in place of a name or an address.
const (
	ToAny = "any" // every address that is not special
	// ToPrivate is RFC 1918 and RFC 6598: the local networks, without addresses of the host and of metadata services.
	ToPrivate = "private"
	ToHost    = "host" // services on the host's 127.0.0.1, which the guest reaches at its gateway
)

// MaxRules is the maximum number of rules of a policy.
const MaxRules = 1000

// Policy says what a VM may reach. The first rule that matches decides; if no rule matches, Default decides. Private,
// link-local and metadata addresses and those of the host are denied unless a rule names them. Loopback, multicast
// and broadcast addresses are always denied. A rule for a network that contains an address of the host or of a
// metadata service does not count as naming that address.
type Policy struct {
	Default string `json:"default"` // Allow or Deny
	Rules   []Rule `json:"rules,omitempty"`
}

// Rule is one line of a policy: "allow *.debian.org tcp:80,443".
type Rule struct {
	Action   string      `json:"action"`
	To       string      `json:"to"`                 // host name, *.domain, address, CIDR or one of the words above
	Protocol string      `json:"protocol,omitempty"` // tcp, udp or icmp; empty means all
	Ports    []PortRange `json:"ports,omitempty"`    // empty means all
}

// PortRange is the range from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// MarshalText writes "80" or "8000-8100".
func (p PortRange) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *PortRange) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePortRange(string(text))
	return err
}

func (p PortRange) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

func (r Rule) String() string {
	s := r.Action + " " + r.To
	if r.Protocol != "" {
		s += " " + r.Protocol
	}
	for i, p := range r.Ports {
		s += map[bool]string{true: ":", false: ","}[i == 0] + p.String()
	}
	return s
}

// IsName reports whether r is about the name of a host or a domain.
func (r Rule) IsName() bool {
	_, notAddress := netip.ParseAddr(r.To)
	_, notPrefix := netip.ParsePrefix(r.To)
	return notAddress != nil && notPrefix != nil && r.To != ToAny && r.To != ToPrivate && r.To != ToHost
}

func (p Policy) String() string {
	var b strings.Builder
	for _, r := range p.Rules {
		b.WriteString(r.String() + "\n")
	}
	return b.String() + "default " + p.Default + "\n"
}

// ParsePortRange reads one port, such as 80, or a range, such as 8000-8100.
func ParsePortRange(s string) (PortRange, error) {
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	first, err := ParsePort(a)
	if err != nil {
		return PortRange{}, err
	}
	last, err := ParsePort(b)
	if err != nil {
		return PortRange{}, err
	}
	if last < first {
		return PortRange{}, fmt.Errorf("the range of ports %s ends before it begins", s)
	}
	return PortRange{first, last}, nil
}

// ParsePort reads a port between 1 and 65535.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port between 1 and 65535", s)
	}
	return uint16(n), nil
}

// Check returns an *Error of CodeInvalid for a policy that cannot be used.
func (p Policy) Check() error {
	if p.Default != Allow && p.Default != Deny {
		return Errorf(CodeInvalid, "the policy's default is %q, but must be allow or deny", p.Default)
	}
	if len(p.Rules) > MaxRules {
		return Errorf(CodeInvalid, "the policy has %d rules, but may have %d", len(p.Rules), MaxRules)
	}
	for _, r := range p.Rules {
		if err := r.Check(); err != nil {
			return Errorf(CodeInvalid, "rule %q: %w", r, err)
		}
	}
	return nil
}

// Check returns what is wrong with r. The caller adds which rule that is.
func (r Rule) Check() error {
	if r.Action != Allow && r.Action != Deny {
		return fmt.Errorf("%q is not allow or deny", r.Action)
	}
	if !slices.Contains([]string{"", "tcp", "udp", "icmp"}, r.Protocol) {
		return fmt.Errorf("%q is not tcp, udp or icmp", r.Protocol)
	}
	if len(r.Ports) > 0 && (r.Protocol == "" || r.Protocol == "icmp") {
		return fmt.Errorf("ports need tcp or udp before them")
	}
	for _, p := range r.Ports {
		if p.First == 0 || p.Last < p.First {
			return fmt.Errorf("%d-%d is not a range of ports", p.First, p.Last)
		}
	}
	return checkDestination(r.To)
}

func checkDestination(to string) error {
	if to == ToAny || to == ToPrivate || to == ToHost {
		return nil
	}
	if p, err := netip.ParsePrefix(to); err == nil {
		if !p.Addr().Is4() || p.Masked() != p {
			return fmt.Errorf("%s is not an IPv4 network; %s would be", to, p.Masked())
		}
		return nil
	}
	if a, err := netip.ParseAddr(to); err == nil {
		if !a.Is4() {
			return fmt.Errorf("%s is not an IPv4 address, and guests have no IPv6", to)
		}
		return nil
	}
	name := strings.TrimPrefix(to, "*.")
	if len(name) > 253 || name == "" {
		return fmt.Errorf("%q is not a host name", to)
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !isLabel(label) {
			return fmt.Errorf("%q is not a host name, *.domain, address or network", to)
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return fmt.Errorf("%q is not an address", to)
	}
	return nil
}

// isLabel reports whether s may be a label of an Internet host name, where the underscore is allowed (RFC 1123, 2.1;
// RFC 8552).
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// Decision is what a VM's policy has decided about one flow or name of its guest. Names are listed only if refused.
type Decision struct {
	Time     time.Time `json:"time"`
	Allowed  bool      `json:"allowed,omitempty"` // otherwise it was refused
	Protocol string    `json:"protocol"`          // tcp, udp, icmp or dns
	Address  string    `json:"address,omitempty"` // the destination
	Port     uint16    `json:"port,omitempty"`
	Name     string    `json:"name,omitempty"` // the name that the guest asked for
	Source   uint16    `json:"source_port,omitempty"`
	Process  string    `json:"process,omitempty"` // its name in the guest, if known; the guest may give any name
	PID      int       `json:"pid,omitempty"`     // in the guest
	Rule     string    `json:"rule"`              // the line of the policy, or the name of the built-in rule
	Count    int       `json:"count,omitempty"`   // number of similar decisions in a short time, if more than one
	// Suggested is the rule that allows what was refused, and nothing else. It is absent if no such rule can.
	Suggested *Rule `json:"suggested,omitempty"`
}
