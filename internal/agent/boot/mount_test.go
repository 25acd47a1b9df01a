package boot

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAnOldDiskKeepsItsOptions, which a file of it may need to be read.
func TestAnOldDiskKeepsItsOptions(t *testing.T) {
	disk, old := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(old, "upper"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // boots
		if options, err := optionsFor(disk); options != OverlayOptions || err != nil {
			t.Errorf("a new disk has the options %q, %v", options, err)
		}
		if options, err := optionsFor(old); options != "" || err != nil {
			t.Errorf("an old disk has the options %q, %v", options, err)
		}
		if err := os.MkdirAll(filepath.Join(disk, "upper"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
