package snapshot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestASnapshotThatCannotBeReadStays, and says so to those who would remove what it needs.
func TestASnapshotThatCannotBeReadStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0123456789ad", infoFile)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if _, err := s.Layers(); err == nil || !strings.Contains(err.Error(), "0123456789ad") {
		t.Errorf("what it needs is known: %v", err)
	}
}
