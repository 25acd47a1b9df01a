package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatTheModuleSaysOfNestedGuests: the module's parameter decides, and the error names the parameter.
func TestWhatTheModuleSaysOfNestedGuests(t *testing.T) {
	for name, c := range map[string]struct{ module, value, want string }{
		"Intel with it":    {"kvm_intel", "Y\n", ""},
		"AMD with it":      {"kvm_amd", "1\n", ""},
		"Intel without it": {"kvm_intel", "N\n", "options kvm_intel nested=1"},
		"AMD without it":   {"kvm_amd", "0\n", "options kvm_amd nested=1"},
		"no module":        {"other", "1\n", "neither the module kvm_intel nor kvm_amd"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, c.module, "parameters", "nested")
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.value), 0o644); err != nil {
				t.Fatal(err)
			}
			err := checkNested(dir)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("the error is %v, not one with %q", err, c.want)
			}
		})
	}
}
