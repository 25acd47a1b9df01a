package config_test

import (
	"strings"
	"testing"

	"banger"
	"banger/internal/config"
	"banger/internal/notation"
)

// TestAllowingChangesNothingElse adds a rule to files that are written in several ways.
func TestAllowingChangesNothingElse(t *testing.T) {
	rule, err := notation.ParseRule("allow new.example tcp:443")
	if err != nil {
		t.Fatal(err)
	}
	present := banger.Policy{Default: banger.Deny, Rules: []banger.Rule{{Action: banger.Deny, To: "10.0.0.0/8"},
		{Action: banger.Allow, To: "*.debian.org"}}}
	const fresh = "[policy]\ndefault = \"deny\"\nallow = [\n    \"new.example tcp:443\",\n    \"*.debian.org\",\n]\n" +
		"deny = [\n    \"10.0.0.0/8\",\n]\n"
	for name, c := range map[string]struct{ before, after string }{
		"no file":   {"", fresh},
		"no policy": {"image = \"x\" # mine\n", "image = \"x\" # mine\n\n" + fresh},
		"one line": {"[policy]\nallow = [\"a.example\"] # why\n",
			"[policy]\nallow = [\"new.example tcp:443\", \"a.example\"] # why\n"},
		"an empty list": {"[policy]\nallow = []\n", "[policy]\nallow = [\"new.example tcp:443\"]\n"},
		"several lines": {"[policy]\nallow = [\n  'a.example',\n]\n",
			"[policy]\nallow = [\n    \"new.example tcp:443\",\n  'a.example',\n]\n"},
		"no list": {"[policy] # mine\ndefault = \"deny\"\n",
			"[policy] # mine\nallow = [\"new.example tcp:443\"]\ndefault = \"deny\"\n"},
		"an inline table": {"policy = { allow = [\"a.example\"] }\n",
			"policy = { allow = [\"new.example tcp:443\", \"a.example\"] }\n"},
		"a dotted key": {"policy.\"allow\" = [ ]\n", "policy.\"allow\" = [\"new.example tcp:443\" ]\n"},
		"the word elsewhere": {"# allow = [1]\n[tasks.t]\nrun = \"allow = [\"\n[policy]\nallow = []\n",
			"# allow = [1]\n[tasks.t]\nrun = \"allow = [\"\n[policy]\nallow = [\"new.example tcp:443\"]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			text, notes, err := config.Allowing([]byte(c.before), rule, present)
			if err != nil || string(text) != c.after {
				t.Errorf("it is\n%s\n%v, and not\n%s", text, err, c.after)
			}
			if strings.Contains(c.after, "deny = [") != (len(notes) == 1) {
				t.Errorf("the notes are %q", notes)
			}
		})
	}
}

// TestWhatCannotBeAllowedInAFile: a wrong file, a place that is not clear, and rules in an order that no file has.
func TestWhatCannotBeAllowedInAFile(t *testing.T) {
	rule := banger.Rule{Action: banger.Allow, To: "new.example"}
	for name, c := range map[string]struct {
		before string
		rules  []banger.Rule
		want   string
	}{
		"a wrong file":     {"colour = 1\n", nil, "colour"},
		"an unclear place": {"policy.default = \"deny\"\n", nil, "is not clear"},
		"a deny behind": {"", []banger.Rule{{Action: banger.Allow, To: "a.example"},
			{Action: banger.Deny, To: "b.example"}}, "behind"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := config.Allowing([]byte(c.before), rule, banger.Policy{Default: banger.Deny, Rules: c.rules})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}
