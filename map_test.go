package banger_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheMapIsTrue checks that docs/ARCHITECTURE.md names every package of internal, and that every package and file
// that it names exists.
func TestTheMapIsTrue(t *testing.T) {
	text, err := os.ReadFile("docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z][a-z0-9_/.]*)`").FindAllStringSubmatch(string(text), -1) {
		named[m[1]] = true
	}
	for dir := range layout {
		name, ours := strings.CutPrefix(dir, "internal/")
		if ours && !named[name] && !partOfATest(name) {
			t.Errorf("the map does not name %s", name)
		}
	}
	files := map[string]bool{}
	for dir, list := range parsePackages(t) {
		for file := range list {
			files[filepath.Base(file)] = true
			files[filepath.Join(dir, filepath.Base(file))] = true
			files[filepath.Join(strings.TrimPrefix(dir, "internal/"), filepath.Base(file))] = true
		}
	}
	for name := range named {
		if strings.HasSuffix(name, ".go") && !files[name] {
			t.Errorf("the map names %s, which is not there", name)
		}
	}
}

// partOfATest reports whether a package is a program, or a part of one, that a test starts.
func partOfATest(name string) bool {
	return strings.HasPrefix(name, "testing/double/") || name == "testing/guesttest/echo" ||
		name == "agent/console" || name == "agent/vector"
}
