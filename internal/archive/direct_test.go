package archive

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/archive/pax"
	"banger/internal/frame"
	"banger/internal/testing/processtest"
)

// onDisk returns a directory of a file system that refuses a direct write from unaligned memory. On
// other file systems the tests of direct writes would prove nothing.
func onDisk(t testing.TB) string {
	t.Helper()
	var tried []string
	for _, parent := range []string{os.TempDir(), "/var/tmp", "."} {
		dir, err := os.MkdirTemp(parent, "archive-test-")
		if err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err = refusesUnaligned(dir); err == nil {
				return dir
			}
		}
		tried = append(tried, fmt.Sprintf("%s: %v", parent, err))
	}
	t.Fatalf("no directory is on a disk with strict O_DIRECT, set TMPDIR to one (%q)", tried)
	return ""
}

// refusesUnaligned returns an error unless, in dir, a direct write of unaligned memory fails with
// EINVAL and one of aligned memory succeeds.
func refusesUnaligned(dir string) error {
	fd, err := unix.Open(dir+"/probe", unix.O_WRONLY|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open with O_DIRECT: %w", err)
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(-1, 0, 2*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	if _, err := unix.Pwrite(fd, mem[:pageSize], 0); err != nil {
		return fmt.Errorf("an aligned direct write: %w", err)
	}
	if _, err := unix.Pwrite(fd, mem[1:pageSize+1], 0); err != unix.EINVAL {
		return fmt.Errorf("an unaligned direct write gives %v, not EINVAL", err)
	}
	return nil
}

// layout is the data of a sparse file: its pieces, and its size.
type layout struct {
	pieces []pax.Piece
	size   int64
}

// randomLayout returns pieces of all sizes near those that matter to direct writes, at aligned and
// unaligned offsets, with holes between most of them.
func randomLayout(r *rand.Rand) layout {
	edges := []int64{0, pax.BlockSize, pageSize, bulkLeast, bulkSize, 2 * bulkSize}
	length := func() int64 {
		n := edges[r.IntN(len(edges))]
		switch r.IntN(4) {
		case 0:
			n += r.Int64N(7) - 3
		case 1:
			n += pageSize * r.Int64N(4)
		case 2:
			n += r.Int64N(20_000)
		}
		return max(n, 1)
	}
	var l layout
	for range 1 + r.IntN(8) {
		switch r.IntN(4) {
		case 0: // the pieces meet
		case 1:
			l.size += 1 + r.Int64N(3*pageSize)
		default:
			l.size = (l.size+pageSize-1)/pageSize*pageSize + pageSize*r.Int64N(64)
		}
		p := pax.Piece{Offset: l.size, Length: length()}
		l.pieces, l.size = append(l.pieces, p), p.Offset+p.Length
	}
	l.size += pageSize * r.Int64N(2)
	return l
}

// write makes the file of random bytes that l describes.
func (l layout) write(t testing.TB, name string, r *rand.ChaCha8) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(l.size))
	for _, p := range l.pieces {
		data := make([]byte, p.Length)
		r.Read(data)
		_, err := f.WriteAt(data, p.Offset)
		must(t, err)
	}
}

// archive returns the tar of the file, with a map of exactly these pieces. The file system may
// report other pieces.
func (l layout) archive(t testing.TB, name string) []byte {
	t.Helper()
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	h := newHeader("f", &st)
	h.Sparse = true
	var b bytes.Buffer
	a := &archiver{ctx: context.Background(), out: newOutput(&b, frame.Type(0)), links: map[inode]*linked{}}
	must(t, a.content(fd, h, l.pieces))
	must(t, a.out.zeros(2*pax.BlockSize))
	must(t, a.out.flush())
	return b.Bytes()
}

// piecesOf returns the pieces of a file that have data, according to the file system.
func piecesOf(t testing.TB, name string) []pax.Piece {
	t.Helper()
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	pieces, _, err := findPieces(fd, st.Size)
	must(t, err)
	return pieces
}

// check extracts the archive of the original and compares content and holes.
func (l layout) check(t *testing.T, original string, archive []byte) {
	t.Helper()
	to := original + ".copy"
	if _, err := Extract(t.Context(), bytes.NewReader(archive), to, ExtractOptions{Direct: true}); err != nil {
		t.Errorf("%v of %d bytes: %v", l.pieces, l.size, err)
		return
	}
	want, err := os.ReadFile(original)
	must(t, err)
	got, err := os.ReadFile(to)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%v of %d bytes: the copy has %d bytes or differs", l.pieces, l.size, len(got))
	}
	if got, want := piecesOf(t, to), piecesOf(t, original); !slices.Equal(got, want) {
		t.Errorf("%v of %d bytes: the copy has data at %v, the original at %v", l.pieces, l.size, got, want)
	}
	must(t, os.Remove(to))
}

// piecesAt returns pieces that are given as pairs of offset and length.
func piecesAt(pairs ...int64) (list []pax.Piece) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, pax.Piece{Offset: pairs[i], Length: pairs[i+1]})
	}
	return list
}

// TestDirectWritesOfPieces copies sparse files whose pieces are written alternately past the page
// cache and through it. Content and holes must stay the same.
func TestDirectWritesOfPieces(t *testing.T) {
	processtest.Long(t)
	original := onDisk(t) + "/f"
	layouts := []layout{
		// a large piece that ends on a page, then a small one
		{piecesAt(0, bulkLeast, bulkSize, 100), bulkSize + 100},
		{piecesAt(0, 100, pageSize, bulkSize, 4*bulkSize, 1, 5*bulkSize, bulkLeast), 6 * bulkSize},
		{piecesAt(0, bulkSize, bulkSize, 3, bulkSize+3, bulkLeast), 2 * bulkSize},
		{piecesAt(1, bulkSize-1, 2*bulkSize, bulkSize+pageSize, 3*bulkSize+2*pageSize, pageSize), 4 * bulkSize},
	}
	seed := [32]byte{'d'}
	r := rand.New(rand.NewChaCha8(seed))
	for range 60 {
		layouts = append(layouts, randomLayout(r))
	}
	for _, l := range layouts {
		l.write(t, original, rand.NewChaCha8(seed))
		l.check(t, original, l.archive(t, original))
		l.check(t, original, archived(t, original, WriteOptions{Name: "f"}))
	}
}
