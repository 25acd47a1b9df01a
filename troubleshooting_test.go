package banger_test

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryErrorCodeHasItsSection compares the codes of error.go with the sections of docs/troubleshooting.md. Each
// section begins with sentences that the code has in the sources, says why, and what to do.
func TestEveryErrorCodeHasItsSection(t *testing.T) {
	code, err := os.ReadFile("error.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := sentences(t)
	var codes, sections []string
	for _, m := range regexp.MustCompile(`(?m)^\tCode\w+ +Code = "(\w+)"`).FindAllStringSubmatch(string(code), -1) {
		codes = append(codes, m[1])
	}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		sections = append(sections, strings.Trim(name, "`"))
		said, _, why := strings.Cut(text, "\n- **Why:** ")
		if !why || !strings.Contains(text, "\n- **What to do:** ") {
			t.Errorf("section %s does not say why, or what to do", name)
		}
		examples := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(said, -1)
		if len(examples) == 0 {
			t.Errorf("section %s has no sentence", name)
		}
		for _, m := range examples {
			if !isSaid(sources, m[1]) {
				t.Errorf("section %s: no error of banger is %q", name, m[1])
			}
		}
	}
	if len(codes) < 10 || !slices.Equal(codes, sections) {
		t.Errorf("the codes are %q, and the sections %q", codes, sections)
	}
}

// sentences returns the string literals of the product, one on a line.
func sentences(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, files := range parsePackages(t) {
		for name, file := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING {
					text, _ := strconv.Unquote(s.Value)
					all.WriteString(text + "\n")
				}
				return true
			})
		}
	}
	return all.String()
}

// isSaid reports whether a line of sources has a sentence, in which "…" stands for any text.
func isSaid(sources, sentence string) bool {
	parts := strings.Split(sentence, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("(?m)" + strings.Join(parts, ".*")).MatchString(sources)
}

// TestPagesLeadSomewhere checks that the files that README and the pages of docs link to are there.
func TestPagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([a-zA-Z0-9_./-]+)\)`)
	for dir, pages := range map[string][]string{
		".":    {"README.md", "CONTRIBUTING.md", "SECURITY.md"},
		"docs": {"install.md", "host.md", "troubleshooting.md", "docker.md", "ARCHITECTURE.md", "SPECIFICATION.md"},
	} {
		for _, page := range pages {
			text, err := os.ReadFile(dir + "/" + page)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllStringSubmatch(string(text), -1) {
				if _, err := os.Stat(dir + "/" + m[1]); err != nil {
					t.Errorf("%s links to %s: %v", page, m[1], err)
				}
			}
		}
	}
}
