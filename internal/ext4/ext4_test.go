package ext4

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// image makes a file system whose tree is what build returns.
func image(t *testing.T, opts Options, build func(w *Writer) *Node) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := New(f, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(build(w)); err != nil {
		t.Fatal(err)
	}
	return path
}

func dir(children map[string]*Node) *Node {
	return &Node{Mode: syscall.S_IFDIR | 0o755, Children: children}
}

func empty(*Writer) *Node { return dir(nil) }

// fsck fails the test unless e2fsck has no complaint at all.
func fsck(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("/sbin/e2fsck", "-fn", path).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	// Version, five passes, the summary.
	if err != nil || len(lines) != 7 {
		t.Fatalf("e2fsck: %v\n%.3000s", err, out)
	}
}

// mounted mounts the image read-only and calls f with the mount point.
func mounted(t *testing.T, path, options string, f func(dir string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,"+options, path, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	f(at)
}

func file(t *testing.T, w *Writer, content []byte) *Node {
	t.Helper()
	d, err := w.WriteData(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return &Node{Mode: syscall.S_IFREG | 0o644, Data: d}
}

func TestEmptyFileSystemsOfAllSizesAreClean(t *testing.T) {
	for _, size := range []int64{MinSize, 100 << 20, 128<<20 + 4096, 129 << 20, 1 << 30, 10 << 30, 2<<30 + 5*4096,
		300 << 30} {
		for _, journal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d journal %v", size, journal), func(t *testing.T) {
				// e2fsck's clock is up to one tick behind time.Now, and it complains about times in the future.
				now := time.Now().Add(-time.Second)
				fsck(t, image(t, Options{Size: size, Journal: journal, Label: "x", Time: now}, empty))
			})
		}
	}
}

func TestALargeEmptyDiskTakesLittleRoom(t *testing.T) {
	path := image(t, Options{Size: 100 << 30, Journal: true}, empty)
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if got := st.Blocks * 512; got > 2<<20 {
		t.Errorf("an empty disk of 100 GiB takes %d bytes of the host", got)
	}
}

func attributes(values map[string][]byte) (list []Xattr) {
	for name, value := range values {
		list = append(list, Xattr{name, value})
	}
	return list
}

// TestEveryKindOfInode compares what the kernel shows with what was written.
func TestEveryKindOfInode(t *testing.T) {
	when := time.Unix(1700000000, 123456789)
	long := strings.Repeat("n", 255)
	acl := []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff")
	xattrs := map[string][]byte{
		"user.small": []byte("v"),
		"user.empty": {},
		"trusted.t":  []byte("tt"),
		"user.large": bytes.Repeat([]byte("L"), 2900),
	}
	for i := range 20 {
		xattrs[fmt.Sprintf("user.many-%d", i)] = []byte(fmt.Sprint("value ", i))
	}
	path := image(t, Options{Size: 256 << 20, Journal: true}, func(w *Writer) *Node {
		shared := file(t, w, []byte("shared"))
		shared.Mode = syscall.S_IFREG | 0o4755
		shared.UID, shared.GID = 4000000000, 200000
		shared.Mtime = when
		withX := file(t, w, nil)
		withX.Xattrs = attributes(xattrs)
		withACL := file(t, w, nil)
		withACL.Xattrs = []Xattr{{"system.posix_acl_access", acl}}
		old := file(t, w, nil)
		old.Mtime = time.Date(1960, 1, 2, 3, 4, 5, 6, time.UTC)
		late := file(t, w, nil)
		late.Mtime = time.Date(2400, 1, 2, 3, 4, 5, 6, time.UTC)
		return dir(map[string]*Node{
			"a": shared, "b": dir(map[string]*Node{"c": shared}),
			"fast":  {Mode: syscall.S_IFLNK | 0o777, Target: strings.Repeat("f", 59)},
			"slow":  {Mode: syscall.S_IFLNK | 0o777, Target: strings.Repeat("s", 60)},
			"max":   {Mode: syscall.S_IFLNK | 0o777, Target: strings.Repeat("m", 4095)},
			"char":  {Mode: syscall.S_IFCHR | 0o600, Major: 5, Minor: 1},
			"block": {Mode: syscall.S_IFBLK | 0o600, Major: 4095, Minor: 1048575},
			"fifo":  {Mode: syscall.S_IFIFO | 0o600}, "sock": {Mode: syscall.S_IFSOCK | 0o600},
			"new\nline": file(t, w, nil), "\xff\xfe": file(t, w, nil), long: file(t, w, nil),
			"x": withX, "acl": withACL, "1960": old, "2400": late,
		})
	})
	fsck(t, path)
	mounted(t, path, "ro", func(at string) {
		stat := func(name string) syscall.Stat_t {
			var st syscall.Stat_t
			if err := syscall.Lstat(filepath.Join(at, name), &st); err != nil {
				t.Errorf("%q: %v", name, err)
			}
			return st
		}
		a, c := stat("a"), stat("b/c")
		if a.Ino != c.Ino || a.Nlink != 2 || a.Mode != syscall.S_IFREG|0o4755 || a.Uid != 4000000000 || a.Gid != 200000 ||
			a.Size != 6 {
			t.Errorf("a and b/c are %+v and %+v", a, c)
		}
		if a.Mtim.Nano() != when.UnixNano() || a.Atim.Nano() != when.UnixNano() || a.Ctim.Nano() != when.UnixNano() {
			t.Errorf("times of a: %v %v %v", a.Mtim, a.Atim, a.Ctim)
		}
		for name, n := range map[string]int{"fast": 59, "slow": 60, "max": 4095} {
			if got, err := os.Readlink(filepath.Join(at, name)); err != nil || len(got) != n {
				t.Errorf("link %s has %d bytes, %v", name, len(got), err)
			}
		}
		if d := stat("char").Rdev; d != 5<<8|1 {
			t.Errorf("char device is %#x", d)
		}
		if d := stat("block").Rdev; unix.Major(d) != 4095 || unix.Minor(d) != 1048575 {
			t.Errorf("block device is %d:%d", unix.Major(d), unix.Minor(d))
		}
		for _, name := range []string{"fifo", "sock", "new\nline", "\xff\xfe", long} {
			stat(name)
		}
		if got := mtime(stat("1960")); got.Year() != 1960 || got.Nanosecond() != 6 {
			t.Errorf("1960 is %v", got)
		}
		if got := mtime(stat("2400")); got.Year() != 2400 || got.Nanosecond() != 6 {
			t.Errorf("2400 is %v", got)
		}
		for name, want := range xattrs {
			buf := make([]byte, 4096)
			n, err := syscall.Getxattr(filepath.Join(at, "x"), name, buf)
			if err != nil || !bytes.Equal(buf[:n], want) {
				t.Errorf("%s is %q, %v", name, buf[:max(n, 0)], err)
			}
		}
		buf := make([]byte, 4096)
		if n, err := syscall.Getxattr(filepath.Join(at, "acl"), "system.posix_acl_access", buf); err != nil ||
			!bytes.Equal(buf[:n], acl) {
			t.Errorf("the ACL is % x, %v", buf[:max(n, 0)], err)
		}
	})
}

func mtime(st syscall.Stat_t) time.Time { return time.Unix(st.Mtim.Sec, st.Mtim.Nsec).UTC() }

// sparse is a reader of blocks of data with holes between them.
type sparse struct {
	rnd  *rand.Rand
	left int
}

func (s *sparse) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), s.left)
	for i := 0; i < n; i += blockSize {
		chunk := p[i:min(i+blockSize, n)]
		clear(chunk)
		if s.rnd.Intn(2) == 0 {
			s.rnd.Read(chunk)
		}
	}
	s.left -= n
	return n, nil
}

func TestDeepExtentTreesHolesAndLargeDirectories(t *testing.T) {
	want := sha256.New()
	const size = 40<<20 + 1234
	path := image(t, Options{Size: 512 << 20, Journal: true}, func(w *Writer) *Node {
		d, err := w.WriteData(io.TeeReader(&sparse{rand.New(rand.NewSource(1)), size}, want))
		if err != nil {
			t.Fatal(err)
		}
		if len(d.extents) <= inodeExtents*blockExtents {
			t.Fatalf("only %d extents: the tree is not deep", len(d.extents))
		}
		many := map[string]*Node{}
		for i := range 20000 {
			many[fmt.Sprintf("file-%d", i)] = &Node{Mode: syscall.S_IFREG | 0o600}
		}
		return dir(map[string]*Node{"holes": {Mode: syscall.S_IFREG | 0o644, Data: d}, "many": dir(many)})
	})
	fsck(t, path)
	mounted(t, path, "ro", func(at string) {
		got := sha256.New()
		f, err := os.Open(filepath.Join(at, "holes"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if n, err := io.Copy(got, f); n != size || err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
			t.Errorf("the file with holes came back otherwise (%d bytes, %v)", n, err)
		}
		entries, err := os.ReadDir(filepath.Join(at, "many"))
		if err != nil || len(entries) != 20000 {
			t.Errorf("%d entries, %v", len(entries), err)
		}
	})
}

func TestTheKernelCanWriteToIt(t *testing.T) {
	path := image(t, Options{Size: 300 << 20, Journal: true}, empty)
	mounted(t, path, "rw", func(at string) {
		for i := range 2000 {
			if err := os.MkdirAll(filepath.Join(at, fmt.Sprint(i%40), fmt.Sprint(i)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(at, "big"), make([]byte, 100<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(at, "7")); err != nil {
			t.Fatal(err)
		}
	})
	fsck(t, path)
}

func TestSameInputGivesTheSameBytes(t *testing.T) {
	var sums [2][32]byte
	for i := range sums {
		data, err := os.ReadFile(image(t, Options{Size: MinSize, UUID: [16]byte{1}, Journal: true}, func(w *Writer) *Node {
			return dir(map[string]*Node{"b": file(t, w, []byte("1")), "a": file(t, w, []byte("2")), "d": dir(nil)})
		}))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
	}
	if sums[0] != sums[1] {
		t.Error("two runs differ")
	}
}

func TestAFullFileSystemSaysSoAndGivesBlocksBack(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := New(f, Options{Size: MinSize})
	if err != nil {
		t.Fatal(err)
	}
	before := w.freeBlocks()
	if _, err := w.WriteData(io.LimitReader(rand.New(rand.NewSource(1)), 100<<20)); !errors.Is(err, ErrNoSpace) {
		t.Errorf("100 MiB into 64 MiB: %v", err)
	}
	if w.freeBlocks() != before {
		t.Errorf("%d blocks free before, %d after the failure", before, w.freeBlocks())
	}
}

func TestBadInputIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		opts Options
		root *Node
	}{
		"too small":      {Options{Size: 1 << 20}, dir(nil)},
		"odd size":       {Options{Size: MinSize + 1}, dir(nil)},
		"long label":     {Options{Size: MinSize, Label: "seventeen letters"}, dir(nil)},
		"root is a file": {Options{Size: MinSize}, &Node{Mode: syscall.S_IFREG}},
		"slash in name":  {Options{Size: MinSize}, dir(map[string]*Node{"a/b": dir(nil)})},
		"long name":      {Options{Size: MinSize}, dir(map[string]*Node{strings.Repeat("n", 256): dir(nil)})},
		"dot dot":        {Options{Size: MinSize}, dir(map[string]*Node{"..": dir(nil)})},
		"no type":        {Options{Size: MinSize}, dir(map[string]*Node{"a": {Mode: 0o644}})},
		"long link": {Options{Size: MinSize}, dir(map[string]*Node{"a": {
			Mode:   syscall.S_IFLNK,
			Target: strings.Repeat("x", 4096),
		}})},
		"unknown xattr": {Options{Size: MinSize}, dir(map[string]*Node{"a": {
			Mode:   syscall.S_IFREG,
			Xattrs: []Xattr{{"odd.x", nil}},
		}})},
		"large xattr": {Options{Size: MinSize}, dir(map[string]*Node{"a": {
			Mode:   syscall.S_IFREG,
			Xattrs: []Xattr{{"user.x", make([]byte, MaxXattr+1)}},
		}})},
		"broken ACL": {Options{Size: MinSize}, dir(map[string]*Node{"a": {
			Mode:   syscall.S_IFREG,
			Xattrs: []Xattr{{"system.posix_acl_access", []byte("junk")}},
		}})},
		"too many inodes": {Options{Size: MinSize}, dir(manyFiles(maxInodesPerGroup + 1))},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "image"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			w, err := New(f, c.opts)
			if err == nil {
				err = w.Finish(c.root)
			}
			if err == nil {
				t.Error("accepted")
			}
		})
	}
}

func manyFiles(n int) map[string]*Node {
	m := map[string]*Node{}
	for i := range n {
		m[fmt.Sprint(i)] = &Node{Mode: syscall.S_IFREG}
	}
	return m
}

func BenchmarkEmptyDisk10GiB(b *testing.B) {
	for b.Loop() {
		f, err := os.Create(filepath.Join(b.TempDir(), "disk"))
		if err != nil {
			b.Fatal(err)
		}
		w, err := New(f, Options{Size: 10 << 30, Journal: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Finish(dir(nil)); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
