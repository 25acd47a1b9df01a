package banger_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// workflow is the part of a workflow file that says what runs.
type workflow struct {
	Jobs map[string]struct {
		Timeout int `yaml:"timeout-minutes"`
		Steps   []struct {
			Uses, Run string
		}
	}
}

// TestWorkflowsRunWhatExists checks that the files for hosted CI can be read, that they call targets of the Makefile,
// and that every job has an end. Nobody can run them here.
func TestWorkflowsRunWhatExists(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]bool{}
	files, _ := filepath.Glob(".github/workflows/*.yml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var w workflow
		if err := yaml.Unmarshal(text, &w); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, job := range w.Jobs {
			if job.Timeout == 0 || job.Timeout > 90 {
				t.Errorf("%s: job %s may take %d minutes", file, name, job.Timeout)
			}
			for _, step := range job.Steps {
				if targets, ok := strings.CutPrefix(step.Run, "make "); ok {
					for target := range strings.FieldsSeq(targets) {
						ran[target] = true
						if !regexp.MustCompile(`(?m)^` + target + `:`).Match(makefile) {
							t.Errorf("%s: make %s does not exist", file, target)
						}
					}
				}
			}
		}
	}
	for _, target := range []string{"lint", "cross", "test", "test-slow", "test-kvm"} {
		if !ran[target] {
			t.Errorf("no workflow runs make %s", target)
		}
	}
}
