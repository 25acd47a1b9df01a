package qemu

import (
	"os"
	"testing"
)

// TestWhereMemoryLies: below the PCI hole, and what has no room there from 4 GiB on.
func TestWhereMemoryLies(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		size, at int64
		n        int
		want     int64 // -1: nowhere
	}{
		"the first byte":               {gib, 0, 1, 0},
		"the last byte":                {gib, gib - 1, 1, gib - 1},
		"over the end":                 {gib, gib - 1, 2, -1},
		"before the beginning":         {gib, -1, 1, -1},
		"high, without high memory":    {gib, 4 * gib, 1, -1},
		"in the hole":                  {4 * gib, 2 * gib, 1, -1},
		"into the hole":                {4 * gib, 2*gib - 1, 2, -1},
		"high":                         {4 * gib, 4 * gib, 1, 2 * gib},
		"the last high byte":           {4 * gib, 6*gib - 1, 1, 4*gib - 1},
		"over the high end":            {4 * gib, 6*gib - 1, 2, -1},
		"so high that it overflows":    {4 * gib, 1<<63 - 1, 1, -1},
		"low, with almost all low":     {lowLimit - 1<<20, lowLimit - 2<<20, 1, lowLimit - 2<<20},
		"low, with just too much":      {lowLimit, lowSplit, 1, -1},
		"high, with just too much low": {lowLimit, 4 * gib, 1, lowSplit},
	} {
		got, err := newRAM(nil, c.size).offset(c.at, c.n)
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%s: %d bytes at %#x lie at %#x (%v), not at %#x", name, c.n, c.at, got, err, c.want)
		}
	}
	f, err := os.CreateTemp(t.TempDir(), "ram")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := newRAM(f, 4*gib)
	if _, err := r.WriteAt([]byte("x"), 5*gib); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1)
	if _, err := f.ReadAt(got, 3*gib); err != nil || got[0] != 'x' {
		t.Errorf("what was written is %q, %v", got, err)
	}
}
