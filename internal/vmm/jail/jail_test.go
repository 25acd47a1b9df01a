package jail

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestAJailIsFoundAndRemoved, whatever its program is called, and others stay.
func TestAJailIsFoundAndRemoved(t *testing.T) {
	b := Base(filepath.Join(t.TempDir(), "jail"))
	one, two := b.Root("/opt/bin/firecracker", "one"), b.Root("firecracker-1.12", "two")
	for _, dir := range []string{one, two} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ids := b.IDs()
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"one", "two"}) || !slices.Equal(b.Roots("two"), []string{two}) ||
		len(b.Roots("three")) != 0 {
		t.Errorf("there are jails of %q, that of two is %q", ids, b.Roots("two"))
	}
	if err := b.Remove("one"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(one))); err == nil {
		t.Error("the directory of its program is left")
	}
	if err := b.Remove("two"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(b)); err == nil {
		t.Error("the directory of all jails is left")
	}
}
