package banger_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryPromiseHasItsTest checks that the tests, stories and files that the specification names exist, and that
// every promise has a number of its own.
func TestEveryPromiseHasItsTest(t *testing.T) {
	text, err := os.ReadFile("docs/SPECIFICATION.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, files := testsOfTheTree(t)
	row := regexp.MustCompile(`^\| ([A-Z]+[0-9]+) \|.*\| (.*) \|$`)
	named := regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)\w+|\be2e/\w+|\b\w+_test\.go\b`)
	seen := map[string]bool{}
	for line := range strings.SplitSeq(string(text), "\n") {
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if seen[m[1]] {
			t.Errorf("two promises have the number %s", m[1])
		}
		seen[m[1]] = true
		proofs := named.FindAllString(m[2], -1)
		if len(proofs) == 0 {
			t.Errorf("promise %s names no test: %s", m[1], m[2])
		}
		for _, name := range proofs {
			if story, ok := strings.CutPrefix(name, "e2e/"); ok && !files[story+".txtar"] ||
				strings.HasSuffix(name, ".go") && !files[name] ||
				!ok && !strings.HasSuffix(name, ".go") && !tests[name] {
				t.Errorf("promise %s names %s, which does not exist", m[1], name)
			}
		}
	}
}

// testsOfTheTree returns the names of all test functions and files of the source tree.
func testsOfTheTree(t *testing.T) (tests, files map[string]bool) {
	t.Helper()
	tests, files = map[string]bool{}, map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[d.Name()] = true
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		for _, m := range function.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests, files
}
