package banger_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheMapIsTrue: docs/ARCHITECTURE.md names each package of internal, and no package or file that there is not.
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

// partOfATest returns true for packages that are programs and parts of what a test starts.
func partOfATest(name string) bool {
	return strings.HasPrefix(name, "vmm/firecracker/double/") || name == "vmm/guesttest/echo" ||
		name == "agent/console" || name == "agent/vector"
}
