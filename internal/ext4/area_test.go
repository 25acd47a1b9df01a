package ext4

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"banger/internal/testing/processtest"

	"golang.org/x/sys/unix"
)

// content returns reproducible data of one file: every block contains its own number, and some blocks
// are zero.
func content(seed int64, size int) []byte {
	p := make([]byte, size+blockSize)
	for i := 0; i*blockSize < size; i++ {
		if block := p[i*blockSize:]; (seed+int64(i))%5 != 4 {
			binary.LittleEndian.PutUint64(block, uint64(seed)<<32+uint64(i)+1)
			block[blockSize-1] = 1
		}
	}
	return p[:size]
}

// fill writes the files of all areas, at most procs at once, and finishes.
func fill(t *testing.T, path string, size int64, files [][]int, procs int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := New(f, Options{Size: size})
	if err != nil {
		t.Fatal(err)
	}
	root := dir(map[string]*Node{})
	areas := w.Areas(len(files))
	nodes := make([][]*Node, len(files))
	slots := make(chan bool, procs)
	var wg sync.WaitGroup
	for i, a := range areas {
		slots <- true
		wg.Go(func() {
			defer func() { <-slots }()
			defer a.Close()
			for j, size := range files[i] {
				d, err := a.WriteData(bytes.NewReader(content(int64(i*1000+j), size)))
				if err != nil {
					t.Error(err)
					return
				}
				nodes[i] = append(nodes[i], &Node{Mode: syscall.S_IFREG | 0o644, Data: d})
			}
		})
	}
	wg.Wait()
	for i := range nodes {
		for j, n := range nodes[i] {
			root.Children[fmt.Sprintf("%d-%d", i, j)] = n
		}
	}
	if err := w.Finish(root); err != nil {
		t.Fatal(err)
	}
}

// sumFile returns a hash of the data of a file and of its offsets, without holes.
func sumFile(t *testing.T, path string) (sum [32]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	for at := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return [32]byte(h.Sum(nil))
		}
		end, err2 := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		fmt.Fprint(h, start, end)
		if _, err := io.Copy(h, io.NewSectionReader(f, start, end-start)); err != nil {
			t.Fatal(err)
		}
		at = end
	}
}

// TestAreasGiveTheSameBytes also when areas overflow into the common half, and
// when there are more of them than groups.
func TestAreasGiveTheSameBytes(t *testing.T) {
	processtest.Long(t)
	many := make([][]int, 9)
	for i := range many {
		many[i] = []int{100, 5000, 3 << 20, 0, 4096, 1 << 20}
	}
	for name, c := range map[string]struct {
		size  int64
		files [][]int
	}{
		"one area":               {MinSize, [][]int{{1, 4096, 4097, 2 << 20}}},
		"three areas":            {1 << 30, [][]int{{1, 4096, 5 << 20}, {70000}, {3 << 20, 0, 12}}},
		"two overflow":           {512 << 20, [][]int{{1 << 20, 130 << 20}, {130 << 20, 3 << 20}, {9 << 20}}},
		"more areas than groups": {512 << 20, many},
	} {
		t.Run(name, func(t *testing.T) {
			parallel, serial := filepath.Join(t.TempDir(), "p"), filepath.Join(t.TempDir(), "s")
			fill(t, parallel, c.size, c.files, len(c.files))
			fill(t, serial, c.size, c.files, 1)
			if sumFile(t, parallel) != sumFile(t, serial) {
				t.Error("the order in time shows in the result")
			}
			fsck(t, parallel)
			mounted(t, parallel, "ro", func(at string) {
				for i := range c.files {
					for j, size := range c.files[i] {
						got, err := os.ReadFile(filepath.Join(at, fmt.Sprintf("%d-%d", i, j)))
						if err != nil || !bytes.Equal(got, content(int64(i*1000+j), size)) {
							t.Errorf("file %d of area %d differs (%v)", j, i, err)
						}
					}
				}
			})
		})
	}
}

// TestLongAttributesGetInodes: values that no block holds, up to what getxattr(2)
// returns, beside shorter ones.
func TestLongAttributesGetInodes(t *testing.T) {
	values := map[string][]byte{"user.short": []byte("x"), "trusted.middle": content(1, 3000),
		"user.long": content(2, 5000), "user.longest": content(3, MaxXattr),
		"security.other": content(4, 4096), "user.second": content(5, 3000)}
	path := image(t, Options{Size: 256 << 20, Journal: true}, func(w *Writer) *Node {
		a, b := file(t, w, []byte("a")), file(t, w, nil)
		a.Xattrs, b.Xattrs = attributes(values), []Xattr{{"user.long", values["user.long"]}}
		return dir(map[string]*Node{"a": a, "b": b, "d": {Mode: syscall.S_IFDIR | 0o755, Xattrs: attributes(values)}})
	})
	fsck(t, path)
	mounted(t, path, "rw", func(at string) {
		for _, name := range []string{"a", "d"} {
			for attr, want := range values {
				got := make([]byte, MaxXattr)
				n, err := unix.Lgetxattr(filepath.Join(at, name), attr, got)
				if err != nil || !bytes.Equal(got[:n], want) {
					t.Errorf("%s of %s: %d bytes of %d, %v", attr, name, n, len(want), err)
				}
			}
		}
		if err := unix.Lremovexattr(filepath.Join(at, "a"), "user.longest"); err != nil {
			t.Errorf("removing a long one: %v", err)
		}
	})
	fsck(t, path)
}
