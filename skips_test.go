package banger_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSkipsHaveReasons checks the list of tests that may be skipped: its form, and that each test exists.
func TestSkipsHaveReasons(t *testing.T) {
	text, err := os.ReadFile("scripts/skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	dirs := testsOfTheTree(t)
	form := regexp.MustCompile(`^(root|user|all) +(internal/[a-z0-9/]+):(Test\w+) +\S.*\S$`)
	n := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := form.FindStringSubmatch(line)
		if m == nil || !slices.Contains(dirs[m[3]], m[2]) {
			t.Errorf("%q does not name a test of a package and a reason", line)
		}
		n++
	}
	if n < 20 {
		t.Errorf("the list has %d tests", n)
	}
}
