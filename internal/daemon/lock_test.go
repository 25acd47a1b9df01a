package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHalvesAreRemoved checks that files which a killed daemon was writing are removed, and no others.
func TestHalvesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "vms"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{"boot-id.tmp": false, "banger.db.copy.tmp": false, "bridge.json.12.tmp": false,
		"vms/0123456789ab.json.tmp": false,
		"boot-id":                   true, "banger.db": true, "vms/0123456789ab.json": true}
	for name := range files {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeHalves(dir); err != nil {
		t.Fatal(err)
	}
	for name, stays := range files {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}
