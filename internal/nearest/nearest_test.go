package nearest

import (
	"strings"
	"testing"
)

// TestTheNearestWord has words with a mistake, and words that are others.
func TestTheNearestWord(t *testing.T) {
	known := []string{"cpus", "memory", "file_sync", "ports", "rm", "run"}
	for word, want := range map[string]string{
		"cpu": "cpus", "CPUS": "cpus", "memroy": "memory", "file": "file_sync", "prots": "ports", "rn": "rm", "xy": "",
		"": "", "nonsense": "", strings.Repeat("x", 1000): "",
	} {
		if got := Word(word, known); got != want {
			t.Errorf("for %q it is %q, not %q", word, got, want)
		}
	}
}
