package banger_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSkipsHaveReasons checks the list of tests that may be skipped: its form, and that each test exists.
func TestSkipsHaveReasons(t *testing.T) {
	text, err := os.ReadFile("scripts/skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	tests, _ := testsOfTheTree(t)
	form := regexp.MustCompile(`^(root|user|all) +(internal/[a-z0-9/]+):(Test\w+) +\S.*\S$`)
	n := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := form.FindStringSubmatch(line)
		if m == nil || !tests[m[3]] {
			t.Errorf("%q does not name a test and a reason", line)
		} else if _, err := os.Stat(m[2]); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		n++
	}
	if n < 20 {
		t.Errorf("the list has %d tests", n)
	}
}
