package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"banger/internal/disk"
)

// TestAUsedDiskIsNotReplaced: the time of a mount in the superblock says that a guest has used it.
func TestAUsedDiskIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path, template := filepath.Join(dir, "disk"), filepath.Join(dir, "template")
	if err := disk.Create(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(template, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(template)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	used, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	const mountTime = 1024 + 0x2C
	if _, err := used.WriteAt([]byte{1}, mountTime); err != nil {
		t.Fatal(err)
	}
	if err := disk.Replace(path, f); err == nil {
		t.Error("a disk that was mounted is replaced")
	}
	if _, err := used.WriteAt([]byte{0}, mountTime); err != nil {
		t.Fatal(err)
	}
	used.Close()
	if err := disk.Replace(path, f); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() != 1<<20 || info.Mode().Perm() != 0o600 {
		t.Errorf("it is %v, %v", info, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 2 {
		t.Errorf("%v are left", list)
	}
}
