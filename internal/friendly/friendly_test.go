package friendly

import (
	"slices"
	"strings"
	"testing"

	"banger"
)

// TestEveryFriendlyNameIsValid tries all possible names instead of random ones.
func TestEveryFriendlyNameIsValid(t *testing.T) {
	for _, a := range adjectives {
		for _, b := range animals {
			if err := banger.CheckName(a + "-" + b); err != nil {
				t.Error(err)
			}
		}
	}
	a, b, ok := strings.Cut(Name(), "-")
	if !ok || !slices.Contains(adjectives, a) || !slices.Contains(animals, b) {
		t.Errorf("a new name is %q and %q", a, b)
	}
}
