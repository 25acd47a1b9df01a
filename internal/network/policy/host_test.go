package policy

import (
	"testing"

	"banger/internal/notation"
)

// TestWhenTheHostCanBeReached decides whether the host's names have an address.
func TestWhenTheHostCanBeReached(t *testing.T) {
	for text, want := range map[string]bool{
		"allow": false, "deny": false, // the host needs a rule of its own
		"allow host":                          true,
		"allow host tcp:8080\ndefault deny":   true,
		"deny host\nallow host tcp:8080":      false,
		"deny host tcp:22\nallow host":        true,
		"allow 10.0.0.0/8\nallow any":         false,
		"allow host.docker.internal tcp:8080": false, // a name is no rule about the host
	} {
		p, err := notation.ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		if ok, why := NewGuard(p, nil).MayReachHost(); ok != want || why == "" {
			t.Errorf("%q: %v, %q", text, ok, why)
		}
	}
}
