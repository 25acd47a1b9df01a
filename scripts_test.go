package banger_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedWaysToCallScriptsAreTried looks for variables in the pages, such as `ONLY=images`. CI tries each of
// them, by scripts/documented or another script.
func TestDocumentedWaysToCallScriptsAreTried(t *testing.T) {
	var tried string
	for _, file := range []string{"scripts/documented", "scripts/test", "scripts/test-slow", ".ci/run"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tried += string(text)
	}
	quoted, variable := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`\b([A-Z]{3,}[A-Z_]*)=`)
	var found []string
	for _, page := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/SPECIFICATION.md",
		"docs/ARCHITECTURE.md", "docs/install.md", "docs/host.md", "docs/troubleshooting.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, code := range quoted.FindAllString(string(text), -1) {
			for _, m := range variable.FindAllStringSubmatch(code, -1) {
				if strings.HasPrefix(m[1], "BANGER_") || slices.Contains(found, m[1]) { // banger's own are in stories
					continue
				}
				found = append(found, m[1])
				if !strings.Contains(tried, m[1]+"=") {
					t.Errorf("%s names %s, which no script of CI sets", page, m[0])
				}
			}
		}
	}
	if len(found) < 8 {
		t.Errorf("the pages name only %v", found)
	}
}
