package pagemap

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWhereItIsAllowed: the kernel shows which pages are private, and Yama lets a parent look into its child.
func TestWhereItIsAllowed(t *testing.T) {
	for name, c := range map[string]struct {
		pagemap bool
		scope   string
		want    bool
	}{
		"a kernel without Yama":    {true, "", true},
		"all of the same user":     {true, "0\n", true},
		"only descendants":         {true, "1\n", true},
		"only with CAP_SYS_PTRACE": {true, "2\n", false},
		"nobody":                   {true, "3\n", false},
		"a kernel without pagemap": {false, "", false},
	} {
		proc := t.TempDir()
		write := func(name, text string) {
			path := filepath.Join(proc, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.pagemap {
			write("self/pagemap", "")
		}
		if c.scope != "" {
			write("sys/kernel/yama/ptrace_scope", c.scope)
		}
		if got := allowed(proc); got != c.want {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}
