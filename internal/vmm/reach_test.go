package vmm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/vmm"
)

func TestWhoIsKeptFromAFileIsTold(t *testing.T) {
	top, err := os.MkdirTemp("", "reach")
	check(t, err)
	defer os.RemoveAll(top)
	dir := filepath.Join(top, "a", "b")
	check(t, os.MkdirAll(dir, 0o755))
	file := filepath.Join(dir, "program")
	check(t, os.WriteFile(file, nil, 0o755))
	link := filepath.Join(top, "link")
	check(t, os.Symlink(file, link))
	for _, mode := range []struct {
		path   string
		mode   os.FileMode
		closed string
	}{
		{top, 0o755, ""}, {file, 0o750, file}, {file, 0o755, ""},
		{filepath.Dir(dir), 0o700, filepath.Dir(dir)}, {filepath.Dir(dir), 0o711, ""},
	} {
		check(t, os.Chmod(mode.path, mode.mode))
		for _, path := range []string{file, link} {
			err := vmm.CheckReach(path)
			told := err != nil && strings.Contains(err.Error(), mode.closed+" is closed")
			if mode.closed == "" && err != nil || mode.closed != "" && !told {
				t.Errorf("%s with %s: %v", mode.path, mode.mode, err)
			}
		}
	}
	if vmm.CheckReach(filepath.Join(dir, "none")) == nil {
		t.Error("a file that is not there can be reached")
	}
}
