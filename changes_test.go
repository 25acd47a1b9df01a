package banger_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var entryForm = regexp.MustCompile(`^- (Security|Added|Changed|Removed|Fixed): \S.*\S$`)

// TestChangesHaveTypes checks the form of each entry: a type and a sentence, in a file of its version.
func TestChangesHaveTypes(t *testing.T) {
	files, err := filepath.Glob("changes/*/*.md")
	if err != nil || len(files) < 30 {
		t.Fatalf("there are %d files of changes, %v", len(files), err)
	}
	for _, file := range files {
		if !regexp.MustCompile(`^changes/\d+\.\d+\.\d+/\d{4}-[a-z0-9-]+\.md$`).MatchString(file) {
			t.Errorf("%s is not changes/VERSION/NUMBER-WORDS.md", file)
		}
		for _, entry := range entries(t, file) {
			if !entryForm.MatchString(entry) {
				t.Errorf("%s: %.80q has no type, such as \"- Fixed: \"", file, entry)
			}
		}
	}
	if stray, _ := filepath.Glob("changes/*.md"); len(stray) > 0 {
		t.Errorf("%v belong to no version", stray)
	}
}

// entries returns the entries of a file of changes, each as one line.
func entries(t *testing.T, file string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, more := strings.CutPrefix(line, "  "); more && len(list) > 0 {
			list[len(list)-1] += " " + strings.TrimSpace(rest)
		} else {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

// TestReleaseNotesHaveEveryChange builds the release notes and looks for each entry below its type, once.
func TestReleaseNotesHaveEveryChange(t *testing.T) {
	versions, err := filepath.Glob("changes/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range versions {
		out, err := exec.Command("scripts/release-notes", filepath.Base(dir)).Output()
		if err != nil {
			t.Fatalf("release notes of %s: %v", dir, err)
		}
		have := map[string]string{} // the type of each entry
		section := ""
		for _, entry := range strings.Split(strings.ReplaceAll(string(out), "\n  ", " "), "\n") {
			if name, ok := strings.CutPrefix(entry, "## "); ok {
				section = name
			} else if text, ok := strings.CutPrefix(entry, "- "); ok {
				if have[text] != "" {
					t.Errorf("%s: %.80q is there twice", dir, text)
				}
				have[text] = section
			}
		}
		files, _ := filepath.Glob(dir + "/*.md")
		for _, file := range files {
			for _, entry := range entries(t, file) {
				name, text, _ := strings.Cut(strings.TrimPrefix(entry, "- "), ": ")
				if have[text] != name {
					t.Errorf("%s: %.80q is in section %q, not %q", file, text, have[text], name)
				}
			}
		}
	}
	if out, err := exec.Command("scripts/release-notes", "9.9.9").CombinedOutput(); err == nil {
		t.Errorf("a version without changes has the notes %q", out)
	}
}
