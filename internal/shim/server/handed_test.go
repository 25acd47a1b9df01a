package server

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInheritedDescriptorsAreClosed starts a process with several descriptors, of which it may keep one.
func TestInheritedDescriptorsAreClosed(t *testing.T) {
	const env = "BANGER_TEST_INHERITED"
	if os.Getenv(env) != "" {
		own, err := os.Open("/dev/null")
		check(t, err)
		defer own.Close()
		check(t, CloseInherited(1))
		for fd, open := range map[int]bool{2: true, 3: true, 4: false, 5: false, int(own.Fd()): true} {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if (err == nil) != open || fd == 3 && flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("shim.Descriptor %d has the flags %#x, %v", fd, flags, err)
			}
		}
		return
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	check(t, err)
	defer file.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.ExtraFiles = []*os.File{file, file, file}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
