package banger_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// maxPageColumns is how wide a line of a page may be.
const maxPageColumns = 160

// statusForm is the line that says whether a decision holds. The date is the day on which the decision was written
// down.
var statusForm = regexp.MustCompile(
	`^Status: (?:accepted|superseded by ADR \d+), (\d{4}-\d{2}-\d{2})(?:; changed by ADR \d+(?:(?:,| and) ADR \d+)*)?\.$`)

// TestDecisionsHaveOneForm checks the numbers, the titles, the status lines and the sections of docs/adr.
func TestDecisionsHaveOneForm(t *testing.T) {
	for i, file := range decisions(t) {
		name := filepath.Base(file)
		if want := fmt.Sprintf("%04d-", i+1); !strings.HasPrefix(name, want) {
			t.Fatalf("%s has another number than %s: a number is missing, or is there twice", name, want)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkDecision(i+1, string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheFormOfADecision checks that each rule of checkDecision refuses a text that breaks it.
func TestTheFormOfADecision(t *testing.T) {
	const good = "# 7. Title\n\nStatus: accepted, 2026-11-23.\n\n" +
		"## Context\n\nA.\n\n## Decision\n\nB.\n\n## Consequences\n\nC.\n"
	if err := checkDecision(7, good); err != nil {
		t.Fatal(err)
	}
	for _, status := range []string{
		"Status: superseded by ADR 9, 2026-11-23.",
		"Status: accepted, 2026-11-23; changed by ADR 9.",
		"Status: accepted, 2026-11-23; changed by ADR 9, ADR 10 and ADR 11.",
	} {
		if err := checkDecision(7, strings.Replace(good, "Status: accepted, 2026-11-23.", status, 1)); err != nil {
			t.Errorf("%s: %v", status, err)
		}
	}
	for _, change := range [][2]string{
		{"# 7. Title", "# 8. Title"},
		{"# 7. Title", "# Title"},
		{"Status: accepted, 2026-11-23.", "Status: accepted."},
		{"Status: accepted, 2026-11-23.", "Status: accepted, 2026-11-31."},
		{"Status: accepted, 2026-11-23.", "Status: proposed, 2026-11-23."},
		{"\n\nStatus", "\nStatus"},
		{"## Context", "## Background"},
		{"## Decision", "## Context"},
		{"\n## Consequences", "\n## Proof\n\nD.\n\n## Consequences"},
		{"C.", ""},
		{"B.", strings.Repeat("é", maxPageColumns+1)},
	} {
		if checkDecision(7, strings.Replace(good, change[0], change[1], 1)) == nil {
			t.Errorf("%q in the place of %q is accepted", change[1], change[0])
		}
	}
}

// decisions returns the files of docs/adr in their order.
func decisions(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("docs/adr/*.md")
	if err != nil || len(files) < 42 {
		t.Fatalf("there are %d decisions, %v", len(files), err)
	}
	slices.Sort(files)
	return files
}

// checkDecision checks the text of the decision with a number: its title, its status, its three sections in their
// order, each with a text, and the width of its lines.
func checkDecision(number int, text string) error {
	lines := strings.Split(text, "\n")
	if len(lines) < 3 || !strings.HasPrefix(lines[0], fmt.Sprintf("# %d. ", number)) || lines[1] != "" {
		return fmt.Errorf("the first line is not \"# %d. Title\", with an empty line after it", number)
	}
	status := statusForm.FindStringSubmatch(lines[2])
	if status == nil {
		return fmt.Errorf("%q is not \"Status: accepted, DATE.\" or another form that adr_test.go allows", lines[2])
	}
	if _, err := time.Parse(time.DateOnly, status[1]); err != nil {
		return err
	}
	var sections []string
	for i, line := range lines {
		if n := utf8.RuneCountInString(line); n > maxPageColumns {
			return fmt.Errorf("line %d has %d columns, over %d", i+1, n, maxPageColumns)
		}
		if name, ok := strings.CutPrefix(line, "## "); ok {
			sections = append(sections, name)
			if body, _, _ := strings.Cut(strings.Join(lines[i+1:], "\n"), "\n## "); strings.TrimSpace(body) == "" {
				return fmt.Errorf("the section %s is empty", name)
			}
		}
	}
	if want := []string{"Context", "Decision", "Consequences"}; !slices.Equal(sections, want) {
		return fmt.Errorf("the sections are %q, not %q", sections, want)
	}
	return nil
}

// TestLinesOfPagesFit checks the width of the pages' lines, those of tables too.
func TestLinesOfPagesFit(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if n := utf8.RuneCountInString(line); n > maxPageColumns {
				t.Errorf("line %d of %s has %d columns, over %d", i+1, page, n, maxPageColumns)
			}
		}
	}
}

// TestNamedDecisionsExist looks for the decisions that pages, comments and scripts name, such as "ADR 5" and
// "docs/adr/0005".
func TestNamedDecisionsExist(t *testing.T) {
	last := len(decisions(t))
	named, found := regexp.MustCompile(`\bADRs? (\d+)(?:(?:,| and| to) (\d{1,3})\b)?|\badr/(\d{4})`), 0
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir(), p == "adr_test.go", !isText(p):
			return nil
		}
		text, err := os.ReadFile(p)
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			for _, digits := range m[1:] {
				if digits == "" {
					continue
				}
				found++
				if n, _ := strconv.Atoi(digits); n < 1 || n > last {
					t.Errorf("%s names decision %s, which does not exist", p, digits)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 50 {
		t.Errorf("only %d decisions are named", found)
	}
}

// isText reports whether a file is a page, a Go file or a script.
func isText(p string) bool {
	ext := filepath.Ext(p)
	return ext == ".md" || ext == ".go" || ext == ".c" || ext == ".yml" || ext == "" && strings.HasPrefix(p, "scripts/")
}
