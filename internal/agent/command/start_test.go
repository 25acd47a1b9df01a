package command

import (
	"os"
	"path/filepath"
	"testing"

	"banger"
)

// TestFindProgram checks that the command's own PATH is searched in order. A file that cannot be
// executed counts only if nothing else is found.
func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o644, "b/tool": 0o755, "c/tool": 0o755, "a/only": 0o644,
		"c/dir/x": 0o755} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	path := "/no/such:" + dir + "/a:" + dir + "/b:" + dir + "/c"
	for _, tt := range []struct {
		name, dir, path, want string
		code                  banger.Code
	}{
		{"tool", "/", path, dir + "/b/tool", ""},
		{"tool", dir, "c:b", dir + "/c/tool", ""}, // relative to the command's directory
		{"tool", dir + "/c", "", dir + "/c/tool", ""},
		{"only", "/", path, "", banger.CodeCannotRun},
		{"dir", "/", path, "", banger.CodeCommandAbsent},
		{"absent", "/", path, "", banger.CodeCommandAbsent},
		{"./tool", dir + "/b", "", dir + "/b/tool", ""},
		{"/any/path", "/", "", "/any/path", ""}, // exec will say
	} {
		got, err := findProgram(tt.name, tt.dir, tt.path)
		if got != tt.want || (err != nil || tt.code != "") && banger.CodeOf(err) != tt.code {
			t.Errorf("%s in %s with %s is %q, %v", tt.name, tt.dir, tt.path, got, err)
		}
	}
}
