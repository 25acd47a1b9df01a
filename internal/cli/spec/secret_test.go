package spec

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// TestWhereSecretsComeFrom: from variables, files and stdin, once each. No error shows a value.
func TestWhereSecretsComeFrom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("of a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		files, variables []string
		running          bool
		want             string // NAME=VALUE of the values; "" means an error
		env, kept        string
	}{
		"a variable":         {files: []string{"TOKEN"}, want: "TOKEN=of a variable"},
		"another variable":   {files: []string{"A=env:TOKEN", "B=env:TOKEN"}, want: "A=of a variable,B=of a variable"},
		"a file":             {variables: []string{"KEY=file:" + file}, want: "KEY=of a file\n", env: "KEY"},
		"stdin":              {files: []string{"KEY=file:-"}, want: "KEY=of stdin"},
		"stdin twice":        {files: []string{"A=file:-", "B=file:-"}},
		"a name twice":       {files: []string{"TOKEN"}, variables: []string{"TOKEN"}},
		"a value":            {files: []string{"KEY=hunter2"}},
		"no variable":        {files: []string{"NONESUCH"}},
		"no file":            {files: []string{"KEY=file:/nonexistent/x"}},
		"no name":            {files: []string{"=env:TOKEN"}},
		"a NUL as a file":    {files: []string{"Z=file:/proc/self/cmdline"}, want: "*"},
		"a NUL in variables": {variables: []string{"Z=file:/proc/self/cmdline"}},
		"one of the VM":      {variables: []string{"NONESUCH"}, running: true, want: "-", env: "NONESUCH", kept: "NONESUCH"},
		"a file of the VM":   {files: []string{"NONESUCH"}, running: true},
		"a named source":     {variables: []string{"A=env:NONESUCH"}, running: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TOKEN", "of a variable")
			g, err := Secrets{c.files, c.variables}.Read(strings.NewReader("of stdin"), c.running)
			if c.want == "" {
				if banger.CodeOf(err) != banger.CodeInvalid || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("the error is %v", err)
				}
				return
			}
			var got []string
			for _, name := range slices.Sorted(maps.Keys(g.Values)) {
				got = append(got, name+"="+string(g.Values[name]))
			}
			if all := strings.Join(got, ","); err != nil || c.want != "*" && all != strings.TrimPrefix(c.want, "-") ||
				strings.Join(g.Env, ",") != c.env || strings.Join(g.Kept, ",") != c.kept {
				t.Errorf("it is %q, %q, %q, %v", all, g.Env, g.Kept, err)
			}
			if _, left := os.LookupEnv("TOKEN"); left && strings.Contains(c.want, "variable") {
				t.Error("a daemon that is started now has the variable")
			}
		})
	}
	if _, err := (Secrets{Files: []string{"KEY=file:-"}}).Read(nil, false); banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("stdin that the command gets: %v", err)
	}
}
