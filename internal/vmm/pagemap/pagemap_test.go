package pagemap_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
	"banger/internal/vmm/pagemap"
)

const page = 4096

// mapping is a sparse file of 4,000 pages that this process has mapped privately. Pages 0 to 9 have data.
func mapping(t *testing.T) (f *os.File, memory []byte) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "a file\nof two lines"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	data := make([]byte, 10*page)
	rand.Read(data)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(4000 * page); err != nil {
		t.Fatal(err)
	}
	memory, err = unix.Mmap(int(f.Fd()), 0, 4000*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(memory) })
	return f, memory
}

// copyOf returns a file that has the content of f and then what this process has changed.
func copyOf(t *testing.T, f *os.File) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy")
	if err := vmm.CopyFile(t.Context(), f, path); err != nil {
		t.Fatal(err)
	}
	to, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	self, err := vmm.Self()
	if err != nil {
		t.Fatal(err)
	}
	if err := pagemap.Copy(t.Context(), self, f, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestWhatWasChangedIsCopied: single pages, a run that is longer than a buffer, the first page and the last, and pages
// that have become zero.
func TestWhatWasChangedIsCopied(t *testing.T) {
	f, memory := mapping(t)
	for _, n := range []int{0, 5, 100, 102, 3999} {
		memory[n*page+n%page] = 1
	}
	rand.Read(memory[1000*page : 2500*page])
	clear(memory[7*page : 8*page])
	for i := 0; i < len(memory); i += page { // pages that were only read belong to the file
		_ = memory[i]
	}
	os.Remove(f.Name()) // as a shim does
	to := copyOf(t, f)
	got, err := os.ReadFile(to.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, memory) {
		for i := range 4000 {
			if a, b := got[i*page:][:page], memory[i*page:][:page]; !bytes.Equal(a, b) {
				t.Errorf("page %d differs", i)
			}
		}
	}
	info, err := to.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if n := info.Sys().(*syscall.Stat_t).Blocks * 512; n > 1600*page {
		t.Errorf("the copy takes %d bytes, so the holes are filled", n)
	}
}

// TestWhatWasNotChangedIsNotCopied: the file may have changed since, and the copy shows what was copied.
func TestWhatWasNotChangedIsNotCopied(t *testing.T) {
	f, memory := mapping(t)
	memory[3*page] = 1
	sum := byte(0)
	for _, b := range memory { // reads all
		sum += b
	}
	to := copyOf(t, f)
	got := make([]byte, 5*page)
	if _, err := to.ReadAt(got, 0); err != nil || !bytes.Equal(got, memory[:5*page]) {
		t.Errorf("the copy differs, %v (%d)", err, sum)
	}
	empty, err := os.Create(filepath.Join(t.TempDir(), "empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	self, err := vmm.Self()
	if err != nil {
		t.Fatal(err)
	}
	if err := pagemap.Copy(t.Context(), self, f, empty); err != nil {
		t.Fatal(err)
	}
	if info, err := empty.Stat(); err != nil || info.Size() != 4*page {
		t.Errorf("besides the page that was changed, others were copied: the file has %d bytes, %v", info.Size(), err)
	}
}

// TestWhatCannotBeCopied is an error that says why.
func TestWhatCannotBeCopied(t *testing.T) {
	f, _ := mapping(t)
	other, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Truncate(page); err != nil {
		t.Fatal(err)
	}
	self, err := vmm.Self()
	if err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	gone := self
	gone.StartTime++
	for name, c := range map[string]struct {
		ctx    context.Context
		handle vmm.Handle
		mapped *os.File
		want   string
	}{
		"a file that is not mapped":           {t.Context(), self, other, "0 bytes of "},
		"a process that has ended":            {t.Context(), gone, f, "has ended"},
		"a context that has ended":            {canceled, self, f, "canceled"},
		"a process whose memory is not shown": {t.Context(), vmm.Handle{PID: 0}, f, "no such file"},
	} {
		err := pagemap.Copy(c.ctx, c.handle, c.mapped, other)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
