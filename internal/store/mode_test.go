package store

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestTheDatabaseIsItsUsersAlone: also its log and its shared memory, whatever the umask, and even if an earlier
// banger left them open to other users.
func TestTheDatabaseIsItsUsersAlone(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "banger.db")
	open := func() {
		t.Helper()
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"", "-wal", "-shm"} {
			info, err := os.Stat(path + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("banger.db%s has mode %04o", suffix, info.Mode().Perm())
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	open()
	for _, suffix := range []string{"", "-wal"} {
		f, err := os.OpenFile(path+suffix, os.O_CREATE|os.O_RDWR, 0o666)
		if err == nil {
			err = f.Chmod(0o666)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	open()
}
