package convert

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/testing/overlaytest"
)

// TestRandomImagesAreWhatOverlayfsShows makes images by random operations on the kernel's
// overlayfs, and compares entry by entry what overlayfs shows with our result.
func TestRandomImagesAreWhatOverlayfsShows(t *testing.T) {
	images := 200
	switch {
	case testing.Short():
		images = 10
	case underRace: // scripts/test runs all of them without it
		images = 30
	}
	compressions := []func([]byte) []byte{gzipped, zstded, func(p []byte) []byte { return p }}
	root := overlayRoot(t)
	for seed := range images {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := filepath.Join(root, fmt.Sprint(seed))
			must(t, os.Mkdir(dir, 0o755))
			stack, err := overlaytest.New(dir)
			must(t, err)
			r := rand.New(rand.NewSource(int64(seed)))
			for range 1 + r.Intn(4) {
				must(t, stack.Layer(func(root string) error {
					(&worker{r, root}).work(10 + r.Intn(60))
					return nil
				}))
			}
			truth, err := stack.Truth()
			must(t, err)
			path, _ := build(t, layersOf(t, stack, compressions[seed%3])...)
			mountImage(t, path, func(at string) {
				got, err := overlaytest.Describe(at)
				must(t, err)
				wantSame(t, got, truth)
			})
			must(t, os.RemoveAll(dir))
		})
	}
}

// worker does random operations on a tree.
type worker struct {
	r    *rand.Rand
	root string
}

// hardNames are few, so that operations often use the same name. Some are hard for tools.
var hardNames = []string{"a", "b", "c", "d", "e", "usr", "lib", "with space", "new\nline", "tab\t'\"$`\\", "\xff\xfe",
	"grün", "-rf", strings.Repeat("n", 255)}

func (w *worker) work(steps int) {
	for range steps {
		w.step()
	}
	// This is the last step, because each step above changes the times of directories.
	for _, p := range w.entries() {
		if w.r.Intn(3) == 0 {
			w.time(p)
		}
	}
}

func (w *worker) entries() []string {
	var list []string
	filepath.Walk(w.root, func(p string, _ os.FileInfo, err error) error {
		if err == nil {
			list = append(list, p)
		}
		return nil
	})
	return list
}

func (w *worker) some() string {
	list := w.entries()
	return list[w.r.Intn(len(list))]
}

// place returns a name, which may exist or not, in an existing directory.
func (w *worker) place() string {
	var dirs []string
	for _, p := range w.entries() {
		if info, err := os.Lstat(p); err == nil && info.IsDir() {
			dirs = append(dirs, p)
		}
	}
	return filepath.Join(dirs[w.r.Intn(len(dirs))], hardNames[w.r.Intn(len(hardNames))])
}

// step does one operation. The kernel may refuse it.
func (w *worker) step() {
	r, p := w.r, w.place()
	switch r.Intn(14) {
	case 0, 1, 2:
		w.write(p, 0o644)
	case 3, 4:
		os.Mkdir(p, 0o755)
	case 5:
		os.Symlink([]string{"a", "/usr", "../lib", "nowhere", strings.Repeat("s/", 29) + "s", strings.Repeat("l", 60),
			strings.Repeat("x/", 2000)}[r.Intn(7)], p)
	case 6:
		os.Link(w.some(), p)
	case 7:
		unix.Mknod(p, []uint32{unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK}[r.Intn(3)]|0o640,
			int(unix.Mkdev(uint32(r.Intn(4096)), uint32(1+r.Intn(1<<20-1)))))
	case 8, 9:
		if p := w.some(); p != w.root {
			os.RemoveAll(p)
		}
	case 10:
		os.Rename(w.some(), p)
	case 11:
		p := w.some()
		os.Lchown(p, r.Intn(1<<32-2), r.Intn(1<<32-2))
		if info, err := os.Lstat(p); err == nil && info.Mode()&os.ModeSymlink == 0 { // its target may be the host's
			unix.Chmod(p, uint32(r.Intn(0o10000)))
		}
	case 12:
		w.attribute(w.some())
	case 13:
		if p := w.some(); p != w.root { // an opaque directory, or a file where one was
			os.RemoveAll(p)
			os.Mkdir(p, 0o700)
			w.write(filepath.Join(p, "a"), 0o600)
		}
	}
}

// write writes a new or a regular file. It does not write to a device or through a symlink, which
// may lead to the host's files.
func (w *worker) write(p string, mode os.FileMode) {
	if info, err := os.Lstat(p); err == nil && !info.Mode().IsRegular() {
		return
	}
	os.WriteFile(p, w.content(), mode)
}

// content returns content whose length is near the limits of blocks and buffers. Some of it is
// zeros.
func (w *worker) content() []byte {
	p := make([]byte, []int{0, 1, 100, 4095, 4096, 4097, 20000, 300000}[w.r.Intn(8)])
	w.r.Read(p)
	for at := 0; at+4096 <= len(p); at += 4096 {
		if w.r.Intn(3) == 0 {
			clear(p[at : at+4096])
		}
	}
	return p
}

func (w *worker) attribute(p string) {
	size := []int{0, 3, 50, 1000, 3000}[w.r.Intn(5)]
	name := []string{"user.u", "trusted.t", "security.s", "user.other", "trusted." + strings.Repeat("n", 200)}[w.r.Intn(5)]
	if w.r.Intn(4) == 0 {
		name, size = "system.posix_acl_access", 0
		unix.Lsetxattr(p, name, []byte(
			"\x02\x00\x00\x00"+"\x01\x00\x06\x00\xff\xff\xff\xff"+"\x02\x00\x04\x00\xe8\x03\x00\x00"+
				"\x04\x00\x04\x00\xff\xff\xff\xff"+"\x10\x00\x04\x00\xff\xff\xff\xff"+"\x20\x00\x00\x00\xff\xff\xff\xff"), 0)
		return
	}
	unix.Lsetxattr(p, name, bytes.Repeat([]byte{byte(w.r.Intn(256))}, size), 0)
}

func (w *worker) time(p string) {
	sec := []int64{-1 << 31, -1, 0, 1, 1<<31 - 1, 1 << 31, 1 << 33, 15032385535, w.r.Int63n(1 << 33)}[w.r.Intn(9)]
	ts := unix.Timespec{Sec: sec, Nsec: w.r.Int63n(1e9)}
	unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
