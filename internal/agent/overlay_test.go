package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/agent/boot"
	"banger/internal/testing/overlaytest"
)

// renameAndChmod mounts an overlay in a mount namespace of its own, renames a directory of
// the image there, and changes a file's mode. It returns the error of the rename, and the
// upper directory.
func renameAndChmod(t *testing.T, options string) (upper string, renamed error) {
	t.Helper()
	base := overlaytest.Directory(t)
	for _, dir := range []string{"lower/dir", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"lower/file", "lower/dir/in"} {
		if err := os.WriteFile(filepath.Join(base, file), []byte("of the image"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread and its namespace end with the goroutine
		failed <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := unix.Chdir(base); err != nil {
				return err
			}
			data := options + "lowerdir=lower,upperdir=upper,workdir=work"
			if err := unix.Mount("overlay", "merged", "overlay", 0, data); err != nil {
				return err
			}
			defer unix.Unmount("merged", 0)
			renamed = unix.Rename("merged/dir", "merged/moved")
			return unix.Chmod("merged/file", 0o600)
		}()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	return filepath.Join(base, "upper"), renamed
}

// TestAnUpperDirectoryHoldsWholeFiles mounts an overlay as a kernel does that renames
// directories by a reference and keeps only a file's attributes where it can
// (CONFIG_OVERLAY_FS_REDIRECT_DIR, CONFIG_OVERLAY_FS_METACOPY). With our options it does
// neither, because what differs from the image is read from the upper directory alone.
func TestAnUpperDirectoryHoldsWholeFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	const kernel = "redirect_dir=on,metacopy=on,index=on,"
	upper, err := renameAndChmod(t, kernel)
	if err != nil {
		t.Fatalf("the kernel's own rename: %v", err)
	}
	for name, attribute := range map[string]string{"moved": "trusted.overlay.redirect",
		"file": "trusted.overlay.metacopy"} {
		if _, err := unix.Lgetxattr(filepath.Join(upper, name), attribute, make([]byte, 100)); err != nil {
			t.Errorf("this kernel gives %s no %s, so the test proves nothing: %v", name, attribute, err)
		}
	}
	var layer bytes.Buffer
	if err := writeChanges(upper, &layer); err == nil || !strings.Contains(err.Error(), "refers to the image") {
		t.Errorf("a layer of such a directory: %v", err)
	}

	upper, err = renameAndChmod(t, kernel+boot.OverlayOptions)
	if err != unix.EXDEV { // then mv(1) copies
		t.Errorf("with our options a directory of the image is renamed: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(upper, "file")); string(data) != "of the image" {
		t.Errorf("with our options a changed file holds %q, %v", data, err)
	}
	layer.Reset()
	if err := writeChanges(upper, &layer); err != nil {
		t.Error(err)
	}
}
