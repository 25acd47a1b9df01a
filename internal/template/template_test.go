package template

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cut makes the files of a snapshot in a new directory, and a disk.
func cut(t *testing.T, memory string) (dir, disk string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range vmm.SavedNames() {
		text := name
		if name == vmm.SnapshotRAM {
			text = memory
		}
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	disk = filepath.Join(dir, "disk")
	check(t, os.WriteFile(disk, []byte("a disk"), 0o600))
	return dir, disk
}

// shape returns a shape whose id begins with digit.
func shape(digit string) string { return strings.Repeat(digit, 64) }

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "templates"))
	check(t, err)
	t.Cleanup(s.Close)
	return s
}

// add adds a template of a shape.
func add(t *testing.T, s *Store, shape string) {
	t.Helper()
	dir, disk := cut(t, strings.Repeat("memory ", 10000))
	check(t, s.Add(shape, banger.Template{Image: "image"}, dir, disk))
}

// TestATemplateIsKept until it is removed, also by the next store.
func TestATemplateIsKept(t *testing.T) {
	s := open(t)
	if _, err := s.Use(shape("a"), false); !errors.Is(err, fs.ErrNotExist) || s.Has(shape("a")) {
		t.Errorf("there is one: %v", err)
	}
	add(t, s, shape("a"))
	s, err := Open(s.dir)
	check(t, err)
	defer s.Close()
	for _, sealed := range []bool{false, true} {
		o, err := s.Use(shape("a"), sealed)
		check(t, err)
		memory, err := io.ReadAll(o.Saved.Memory)
		if err != nil || len(memory) != 70000 {
			t.Errorf("sealed %v: the memory has %d bytes, %v", sealed, len(memory), err)
		}
		if disk, err := io.ReadAll(o.Disk); string(disk) != "a disk" {
			t.Errorf("the disk is %q, %v", disk, err)
		}
		o.Close()
	}
	if _, err := s.Use(shape("a")[:63]+"b", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another shape with the same id gives %v", err)
	}
	found, err := s.Find("aaa")
	if err != nil || found.Image != "image" || found.Size == 0 || found.CreatedAt.IsZero() {
		t.Errorf("it is %+v, %v", found, err)
	}
	if _, err := s.Find("ab"); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("ab finds %v", err)
	}
	check(t, s.Remove(found.ID))
	if list, err := os.ReadDir(s.dir); err != nil || len(list) > 0 {
		t.Errorf("it leaves %v, %v", list, err)
	}
}

// TestNobodyCanWriteToTheMemory that VMs share, by no way of writing.
func TestNobodyCanWriteToTheMemory(t *testing.T) {
	s := open(t)
	add(t, s, shape("a"))
	o, err := s.Use(shape("a"), true)
	check(t, err)
	defer o.Close()
	fd := int(o.Saved.Memory.Fd())
	if _, err := unix.Pwrite(fd, []byte("x"), 0); err != unix.EPERM {
		t.Errorf("a write gives %v", err)
	}
	if _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != unix.EPERM {
		t.Errorf("a shared mapping gives %v", err)
	}
	if err := unix.Ftruncate(fd, 0); err != unix.EPERM {
		t.Errorf("truncating gives %v", err)
	}
	own, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	check(t, err)
	defer unix.Munmap(own)
	own[0] = 'x'
	again, err := s.Use(shape("a"), true)
	check(t, err)
	defer again.Close()
	first := make([]byte, 6)
	if _, err := again.Saved.Memory.ReadAt(first, 0); string(first) != "memory" {
		t.Errorf("the next VM sees %q, %v", first, err)
	}
}

// TestTheOldestGoesFirst: what was used longest ago is removed until the rest fits.
func TestTheOldestGoesFirst(t *testing.T) {
	s := open(t)
	for i, digit := range []string{"a", "b", "c"} {
		add(t, s, shape(digit))
		then := time.Now().Add(time.Duration(i-10) * time.Minute)
		check(t, os.Chtimes(filepath.Join(s.path(IDOf(shape(digit))), infoFile), then, then))
	}
	o, err := s.Use(shape("a"), false) // now it is the newest
	check(t, err)
	o.Close()
	list, err := s.List()
	check(t, err)
	removed, err := s.Shrink(2 * list[0].Size)
	if err != nil || len(removed) != 1 || removed[0].ID != IDOf(shape("b")) {
		t.Errorf("%v are removed, %v", removed, err)
	}
	if s.Has(shape("b")) || !s.Has(shape("a")) || !s.Has(shape("c")) {
		t.Error("others are there")
	}
}
