package spec

import (
	"fmt"
	"io"
	"os"
	"slices"

	"banger"
	"banger/internal/notation"
)

// network puts the options of the network into s.
func (o Options) network(s *banger.Spec) error {
	for _, p := range o.Publish {
		forwards, err := notation.ParseForwards(p)
		if err != nil {
			return err
		}
		s.Forwards = append(s.Forwards, forwards...)
	}
	var err error
	if s.CA, err = readCA(o.CA); err != nil {
		return err
	}
	var proxies []banger.Rule
	if o.Proxy != "" {
		var env []string
		if env, proxies, err = proxy(o.Proxy, s.Network, os.Getenv); err != nil {
			return err
		}
		s.Env = append(env, s.Env...)
	}
	if o.Policy == "" && o.Base == nil && len(o.Allow) == 0 && len(o.Deny) == 0 && len(proxies) == 0 {
		return nil
	}
	policy, err := o.policy(s.Untrusted)
	if err != nil {
		return err
	}
	denied, err := parseRules(banger.Deny, o.Deny)
	if err != nil {
		return err
	}
	allowed, err := parseRules(banger.Allow, o.Allow)
	if err != nil {
		return err
	}
	policy.Rules = slices.Concat(denied, proxies, allowed, policy.Rules)
	s.Policy = &policy
	return nil
}

// policy returns what comes after the rules of flags.
func (o Options) policy(untrusted bool) (banger.Policy, error) {
	switch {
	case o.Policy != "":
		return Policy(o.Policy, o.Stdin)
	case o.Base != nil:
		return o.Base.Resolve()
	case untrusted:
		return banger.Policy{Default: banger.Deny}, nil
	}
	return banger.Policy{Default: banger.Allow}, nil
}

func parseRules(action string, texts []string) (rules []banger.Rule, err error) {
	for _, text := range texts {
		r, err := notation.ParseRule(action + " " + text)
		if err != nil {
			return nil, banger.Errorf(banger.CodeInvalid, "--net-%s: %w", action, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// Policy reads a policy from arg: allow, deny, the name of a file, or - for stdin.
func Policy(arg string, stdin io.Reader) (banger.Policy, error) {
	if arg == banger.Allow || arg == banger.Deny {
		return notation.ParsePolicy(arg)
	}
	const maxPolicy = 1 << 20 // bytes
	in := stdin
	if arg != "-" {
		f, err := os.Open(arg)
		if err != nil {
			return banger.Policy{}, banger.Errorf(banger.CodeInvalid, "cannot read the policy %s: %w", arg, banger.Cause(err)).
				WithHint("give allow, deny or a file of rules")
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPolicy+1))
	if err == nil && len(text) > maxPolicy {
		err = fmt.Errorf("it is longer than %s", banger.FormatSize(maxPolicy))
	}
	if err != nil {
		return banger.Policy{}, banger.Errorf(banger.CodeInvalid, "cannot read the policy %s: %w", arg, banger.Cause(err))
	}
	return notation.ParsePolicy(string(text))
}
