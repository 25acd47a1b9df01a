package reserve_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"banger/internal/reserve"
)

// TestTheReserveTakesRoomAndGivesItBack. e2e/nospace tests the reserve on a full disk.
func TestTheReserveTakesRoomAndGivesItBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reserve")
	r := reserve.At(path)
	for range 2 { // the second time it already holds enough
		if err := r.Fill(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Blocks*512 < reserve.Size || info.Mode().Perm() != 0o600 {
			t.Errorf("it takes %d bytes, with mode %04o", st.Blocks*512, info.Mode().Perm())
		}
	}
	if released, err := r.ReleaseIfFull(); released || err != nil {
		t.Errorf("on a disk that is not full it is given back: %v, %v", released, err)
	}
	if !r.Release() || r.Release() {
		t.Error("it is not given back exactly once")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
}
