package ext4

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nowhere is a file that keeps nothing.
type nowhere struct{ mu sync.Mutex }

func (n *nowhere) WriteAt(p []byte, at int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at < 0 || at+int64(len(p)) > MinSize {
		panic("a write outside the file system")
	}
	return len(p), nil
}

func (n *nowhere) Truncate(int64) error { return nil }

// script turns any bytes into a tree. Each step uses a few of them.
type script struct {
	w     *Writer
	p     []byte
	dirs  []*Node
	files []*Node
}

func (s *script) next() int {
	if len(s.p) == 0 {
		return 0
	}
	b := s.p[0]
	s.p = s.p[1:]
	return int(b)
}

// bytes returns up to n bytes of the script, which is repeated.
func (s *script) bytes(n int) []byte {
	if len(s.p) == 0 {
		return bytes.Repeat([]byte{'x'}, n)
	}
	piece := s.p[:min(len(s.p), 1+n%7)]
	return bytes.Repeat(piece, n/len(piece)+1)[:n]
}

// text returns bytes that are mostly a valid name.
func (s *script) text(n int) string {
	p := s.bytes(n)
	if s.next() < 255 {
		p = bytes.Map(func(r rune) rune {
			if r == '/' || r == 0 {
				return '_'
			}
			return r
		}, p)
	}
	return string(p[:min(n, len(p))])
}

func (s *script) step() error {
	dir := s.dirs[s.next()%len(s.dirs)]
	name := s.text(1 + s.next()%255)
	if dir.Children[name] != nil {
		return nil
	}
	n := &Node{Mode: uint32(s.next()) << 4 & 0o7777, UID: uint32(s.next()) << 24, GID: uint32(s.next()),
		// The latest year is 2242: e2fsck takes times after 2310 for a mistake.
		Mtime: time.Unix(int64(s.next()%80-16)<<27, int64(s.next())<<22)}
	kinds := []uint32{syscall.S_IFREG, syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFCHR, syscall.S_IFIFO,
		syscall.S_IFSOCK, 0}
	switch kind := kinds[s.next()%len(kinds)]; kind {
	case syscall.S_IFREG:
		data, err := s.w.WriteData(bytes.NewReader(s.bytes(s.next() << (s.next() % 10))))
		if err != nil {
			return err
		}
		n.Mode, n.Data = n.Mode|kind, data
		s.files = append(s.files, n)
	case syscall.S_IFDIR:
		n.Mode, n.Children = n.Mode|kind, map[string]*Node{}
		s.dirs = append(s.dirs, n)
	case syscall.S_IFLNK:
		n.Mode, n.Target = n.Mode|kind, s.text(1+s.next()<<(s.next()%4))
	case 0: // a hard link
		if len(s.files) == 0 {
			return nil
		}
		n = s.files[s.next()%len(s.files)]
	default:
		n.Mode, n.Major, n.Minor = n.Mode|kind, uint32(s.next()), uint32(s.next())
	}
	for i := range s.next() % 4 {
		n.Xattrs = append(n.Xattrs,
			Xattr{fmt.Sprint("user.", i, s.text(1+s.next()%240)), s.bytes(s.next() << (s.next() % 9))})
	}
	dir.Children[name] = n
	return nil
}

// written writes the tree of a script as a file system to f.
func written(f File, p []byte) error {
	w, err := New(f, Options{Size: MinSize})
	if err != nil {
		return err
	}
	root := &Node{Mode: syscall.S_IFDIR | 0o755, Children: map[string]*Node{}}
	s := &script{w: w, p: p, dirs: []*Node{root}}
	for len(s.p) > 0 {
		if err := s.step(); err != nil {
			return err
		}
	}
	return w.Finish(root)
}

// FuzzTree writes any tree: a file system or a refusal, never a panic, and no write
// outside of it.
func FuzzTree(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 12 {
		f.Add(randomScript(r, 1<<n))
	}
	f.Fuzz(func(t *testing.T, p []byte) { _ = written(&nowhere{}, p) })
}

func randomScript(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// TestRandomTreesAreClean checks that e2fsck finds no fault in what is written of random trees.
func TestRandomTreesAreClean(t *testing.T) {
	r, taken := rand.New(rand.NewPCG(3, 4)), 0
	for i := range 60 {
		path := filepath.Join(t.TempDir(), "image")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		err = written(f, randomScript(r, 1+r.IntN(6000)))
		f.Close()
		if err != nil {
			continue // a name with a slash, an attribute too large
		}
		taken++
		if out, err := exec.Command("/sbin/e2fsck", "-fn", path).CombinedOutput(); err != nil {
			t.Fatalf("tree %d: %v\n%.2000s", i, err, out)
		}
	}
	if taken < 10 {
		t.Errorf("only %d of the trees could be written", taken)
	}
}
