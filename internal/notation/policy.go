package notation

import (
	"fmt"
	"strings"

	"banger"
)

// ParsePolicy reads a policy as a person writes it: "allow", "deny", or lines. A line is a rule, "default allow" or
// "default deny", or a comment after #. Without a default, everything that no rule allows is denied.
func ParsePolicy(text string) (banger.Policy, error) {
	p := banger.Policy{Default: banger.Deny}
	if word := strings.TrimSpace(text); word == banger.Allow || word == banger.Deny {
		return banger.Policy{Default: word}, nil
	}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var err error
		if words[0] == "default" {
			if len(words) != 2 || words[1] != banger.Allow && words[1] != banger.Deny {
				err = fmt.Errorf("%q is not \"default allow\" or \"default deny\"", strings.TrimSpace(line))
			} else {
				p.Default = words[1]
			}
		} else {
			var r banger.Rule
			if r, err = ParseRule(line); err == nil {
				p.Rules = append(p.Rules, r)
			}
		}
		if err != nil {
			return banger.Policy{}, banger.Errorf(banger.CodeInvalid, "line %d of the policy: %w", i+1, err).
				WithHint("for example: allow *.debian.org tcp:80,443")
		}
	}
	return p, p.Check()
}

// ParseRule reads one rule: ACTION DESTINATION [PROTOCOL[:PORTS]].
func ParseRule(line string) (banger.Rule, error) {
	words := strings.Fields(line)
	if len(words) < 2 || len(words) > 3 {
		return banger.Rule{}, fmt.Errorf("%q is not ACTION DESTINATION [PROTOCOL[:PORTS]]", strings.TrimSpace(line))
	}
	r := banger.Rule{Action: words[0], To: strings.ToLower(strings.TrimSuffix(words[1], "."))}
	if len(words) == 3 {
		proto, ports, found := strings.Cut(words[2], ":")
		r.Protocol = proto
		if found {
			var err error
			if r.Ports, err = parsePorts(ports); err != nil {
				return banger.Rule{}, err
			}
		}
	}
	return r, r.Check()
}

func parsePorts(s string) ([]banger.PortRange, error) {
	var out []banger.PortRange
	for _, part := range strings.Split(s, ",") {
		ports, err := banger.ParsePortRange(part)
		if err != nil {
			return nil, err
		}
		out = append(out, ports)
	}
	return out, nil
}
