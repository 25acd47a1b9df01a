package tooling

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/cli/command"
	"banger/internal/config"
	"banger/internal/host"
	"banger/internal/tooling"
)

// run returns what a command line of a user with a state directory prints.
func run(t *testing.T, state string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems bytes.Buffer
	a := &command.App{Stdout: &out, Stderr: &problems}
	a.Reach(host.Paths{State: state})
	c := New(a)
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetArgs(args)
	err = c.Execute()
	return out.String(), problems.String(), err
}

// TestAPlanIsShown prints a plan with a contradiction, a note and a range, as a table and as JSON.
func TestAPlanIsShown(t *testing.T) {
	root, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	for name, text := range map[string]string{
		"go.mod":         "module x\ngo 1.26.3\n",
		".go-version":    "1.25\n",
		"package.json":   `{"engines": {"node": "^20"}}`,
		"pyproject.toml": "project.requires-python = '>=3.13.0rc1'",
		".ruby-version":  "$(reboot)",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const table = "TOOL     VERSION   FROM\n" +
		"go       1.25      .go-version:1\n" +
		"node     20        package.json:1 (^20)\n" +
		"python   ?         pyproject.toml:1 (>=3.13.0rc1)\n"
	const problems = "banger: go: .go-version:1 asks for 1.25 and go.mod:2 for 1.26.3, so the version of .go-version counts\n" +
		"banger: .ruby-version:1 was left out: \"$(reboot)\" is not a version of ruby\n" +
		"banger: python: pyproject.toml:1 asks for >=3.13.0rc1, which does not say one version: pin one in mise.toml\n"
	stdout, stderr, err := run(t, state, "plan", root)
	if stdout != table || stderr != problems || err != nil {
		t.Errorf("it prints %s and %s: %v", stdout, stderr, err)
	}
	stdout, stderr, err = run(t, state, "plan", "--format", "json", root)
	var plan tooling.Plan
	if json.Unmarshal([]byte(stdout), &plan) != nil || len(plan.Tools) != 3 || len(plan.Conflicts) != 1 ||
		len(plan.Notes) != 2 || plan.Root != root || stderr != "" || err != nil {
		t.Errorf("it prints %s and %s: %v", stdout, stderr, err)
	}
	for _, args := range [][]string{
		{"plan", filepath.Join(root, "none")}, {"plan", "--format", "yaml", root}, {"plan", root, root},
	} {
		if stdout, _, err = run(t, state, args...); err == nil || stdout != "" {
			t.Errorf("%q prints %s", args, stdout)
		}
	}
}

// TestAnAllowedFileCountsFirst has a banger.toml before and after its review, and a broken one.
func TestAnAllowedFileCountsFirst(t *testing.T) {
	root, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	file := filepath.Join(root, config.ProjectFile)
	plan := func() string {
		t.Helper()
		stdout, stderr, err := run(t, state, "plan", root)
		if err != nil {
			t.Fatal(err)
		}
		return stdout + stderr
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(root, "go.mod"), "go 1.25")
	const text = "tools = { go = \"1.26\" }"
	write(file, text)
	if got := plan(); !strings.Contains(got, "1.25      go.mod:1") {
		t.Errorf("before its review the plan is %s", got)
	}
	if err := (config.Reviews{Dir: filepath.Join(state, "reviews")}).Allow(file, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if got := plan(); !strings.Contains(got, "1.26      banger.toml:1") || strings.Contains(got, "banger: ") {
		t.Errorf("the plan is %s", got)
	}
	write(file, "tool = 1")
	if got := plan(); !strings.Contains(got, `banger: banger.toml:1: the key "tool" is unknown`) ||
		!strings.Contains(got, "1.25") {
		t.Errorf("with a broken file the plan is %s", got)
	}
}
