package banger_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A promise is one row of a table with a number, and rows that continue it, whose first cell is empty.
var (
	promiseRow      = regexp.MustCompile(`^\| ([A-Z]+[0-9]+) \| (.*) \|(.*) \|$`)
	continuationRow = regexp.MustCompile(`^\| \|(.*) \|(.*) \|$`)
)

// promise is a promise of the specification: its number, its text and what proves it.
type promise struct{ number, text, proof string }

// promises returns the promises of a specification in their order.
func promises(text string) (list []promise) {
	open := false // the line before belongs to a promise
	for line := range strings.SplitSeq(text, "\n") {
		if m := promiseRow.FindStringSubmatch(line); m != nil {
			list, open = append(list, promise{m[1], m[2], m[3]}), true
		} else if m := continuationRow.FindStringSubmatch(line); m != nil && open {
			last := &list[len(list)-1]
			last.text, last.proof = last.text+m[1], last.proof+m[2]
		} else {
			open = false
		}
	}
	return list
}

// TestEveryPromiseHasItsTest checks that the tests, stories and files that the specification names exist, and that
// every promise has a number of its own.
func TestEveryPromiseHasItsTest(t *testing.T) {
	text, err := os.ReadFile("docs/SPECIFICATION.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs := testsOfTheTree(t)
	named := regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)\w+|\be2e/(?:slow/)?[\w-]+|\bui/[\w-]+|\b\w+_test\.go\b`)
	seen := map[string]bool{}
	for _, p := range promises(string(text)) {
		if seen[p.number] {
			t.Errorf("two promises have the number %s", p.number)
		}
		seen[p.number] = true
		proofs := named.FindAllString(p.proof, -1)
		if len(proofs) == 0 {
			t.Errorf("promise %s names no test: %s", p.number, p.proof)
		}
		for _, name := range proofs {
			file := name
			if story, ok := strings.CutPrefix(name, "e2e/"); ok {
				file = strings.TrimPrefix(story, "slow/") + ".txtar"
			}
			if story, ok := strings.CutPrefix(name, "ui/"); ok {
				file = story + ".test.js"
			}
			if dirs[file] == nil {
				t.Errorf("promise %s names %s, which does not exist", p.number, name)
			}
		}
	}
	if len(seen) < 200 {
		t.Errorf("there are only %d promises", len(seen))
	}
}

// TestProofsNameTheirPackage checks the package before a test, such as "`mux: TestX`, `TestY`": it is the last part of
// the directory of both tests, or banger.
func TestProofsNameTheirPackage(t *testing.T) {
	text, err := os.ReadFile("docs/SPECIFICATION.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs := testsOfTheTree(t)
	proof := regexp.MustCompile("`(?:([a-z0-9/]+): )?((?:Test|Fuzz)\\w+|\\w+_test\\.go)`")
	for _, p := range promises(string(text)) {
		pkg := ""
		for _, m := range proof.FindAllStringSubmatch(p.proof, -1) {
			if m[1] != "" {
				pkg = m[1]
			}
			there := slices.ContainsFunc(dirs[m[2]], func(dir string) bool {
				return dir == "." && pkg == "banger" || strings.HasSuffix("/"+dir, "/"+pkg)
			})
			if pkg != "" && !there {
				t.Errorf("promise %s names %s of %s, which is in %v", p.number, m[2], pkg, dirs[m[2]])
			}
		}
	}
}

// TestPromisesGoOverSeveralRows checks what promises reads from tables.
func TestPromisesGoOverSeveralRows(t *testing.T) {
	const text = `
| # | Promise | Proof |
|---|---|---|
| A1 | One | TestOne |
| A2 | Two. | TestTwo |
| | More | TestMore |
| | | TestLast |

| | no promise | TestNone |
| A3 | Three | |
| | | TestThree |
`
	want := []promise{
		{"A1", "One", " TestOne"},
		{"A2", "Two. More", " TestTwo TestMore TestLast"},
		{"A3", "Three", " TestThree"},
	}
	if got := promises(text); !slices.Equal(got, want) {
		t.Errorf("the promises are %q", got)
	}
}

// testsOfTheTree returns the directories of all test functions and of all files of the source tree, by their names.
func testsOfTheTree(t *testing.T) map[string][]string {
	t.Helper()
	dirs := map[string][]string{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		dir := filepath.Dir(p)
		dirs[d.Name()] = append(dirs[d.Name()], dir)
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		for _, m := range function.FindAllSubmatch(text, -1) {
			dirs[string(m[1])] = append(dirs[string(m[1])], dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}
