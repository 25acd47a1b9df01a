package ext4

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func grow(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// size returns the size in bytes of the file system that is mounted at dir.
func size(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

// TestItGrowsOffline checks that an unmounted file system grows by resize2fs and keeps its content.
func TestItGrowsOffline(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 100_000)
	for _, from := range []int64{MinSize, 300 << 20, 2 << 30} {
		path := image(t, Options{Size: from, Journal: true}, func(w *Writer) *Node {
			return dir(map[string]*Node{"f": file(t, w, content)})
		})
		grow(t, path, 10*from)
		run(t, "/sbin/resize2fs", path)
		fsck(t, path)
		mounted(t, path, "ro", func(at string) {
			if got, err := os.ReadFile(filepath.Join(at, "f")); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the content has changed: %v", err)
			}
			if got := size(t, at); got < 9*from {
				t.Errorf("it has %d bytes", got)
			}
		})
	}
}

// TestItGrowsOnline checks that a file system grows while it is mounted, far beyond the groups
// whose descriptors fit into one block.
func TestItGrowsOnline(t *testing.T) {
	if os.Geteuid() != 0 || !mayResize(t) {
		t.Skip("only root with CAP_SYS_RESOURCE may grow a mounted file system")
	}
	path := image(t, Options{Size: 200 << 20, Journal: true}, empty)
	loop := run(t, "/sbin/losetup", "--find", "--show", path)
	defer exec.Command("/sbin/losetup", "-d", loop).Run()
	at := t.TempDir()
	run(t, "mount", loop, at)
	defer exec.Command("umount", at).Run()
	for _, to := range []int64{1 << 30, 40 << 30} {
		grow(t, path, to)
		run(t, "/sbin/losetup", "-c", loop)
		run(t, "/sbin/resize2fs", loop)
		if got := size(t, at); got < to*9/10 {
			t.Errorf("grown to %d it has %d bytes", to, got)
		}
		if err := os.WriteFile(filepath.Join(at, "f"), make([]byte, 1<<20), 0o644); err != nil {
			t.Error(err)
		}
	}
	run(t, "umount", at)
	fsck(t, path)
}

// mayResize reports whether this machine lets root do what ext4_resize_begin requires.
func mayResize(t *testing.T) bool {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
