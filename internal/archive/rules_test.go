package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/archive/pax"
	"banger/internal/frame"
)

// copyTo copies src to dst as `banger cp` does.
func copyTo(t testing.TB, src, dst string) error {
	t.Helper()
	name := Base(src)
	_, err := Extract(context.Background(), bytes.NewReader(archived(t, src, WriteOptions{Name: name})), dst,
		ExtractOptions{Name: name})
	return err
}

// TestDestinations is docker's table (docker cp --help; docs: "docker container cp").
func TestDestinations(t *testing.T) {
	for _, c := range []struct{ src, dst, want string }{ // want is the file that then holds "src", or words of the error
		{"file", "new", "new"},
		{"file", "new.", "new."},
		{"file", "new/", "there is no directory"},
		{"file", "old", "old"},
		{"file", "old/", "not a directory"},
		{"file", "dir", "dir/file"},
		{"file", "dir/", "dir/file"},
		{"file", "dir/.", "dir/file"},
		{"file", "dir/new", "dir/new"},
		{"file", "missing/new", "there is no directory"},
		{"file", "old/new", "not a directory"},
		{"file", "todir", "dir/file"},
		{"file", "toold", "old"},
		{"file", "dangling", "target"},
		{"file", "around", "too many"},
		{"file", "pipe", "neither a file nor a directory"},
		{"tree", "new", "new/in"},
		{"tree", "new/", "new/in"},
		{"tree", "dir", "dir/tree/in"},
		{"tree", "dir/", "dir/tree/in"},
		{"tree/", "dir", "dir/tree/in"},
		{"tree/.", "new", "new/in"},
		{"tree/.", "dir", "dir/in"},
		{"tree/.", "old", "not a directory"},
		{"tree", "old", "not a directory"},
		{"tree", "todir", "dir/tree/in"},
		{"tree", "missing/new", "there is no directory"},
	} {
		t.Run(c.src+" to "+c.dst, func(t *testing.T) {
			base := t.TempDir()
			at := func(name string) string { return base + "/" + name } // no cleaning
			must(t, os.MkdirAll(at("src/tree"), 0o755))
			must(t, os.WriteFile(at("src/file"), []byte("src"), 0o644))
			must(t, os.WriteFile(at("src/tree/in"), []byte("src"), 0o644))
			must(t, os.Mkdir(at("dir"), 0o700))
			must(t, os.WriteFile(at("old"), []byte("old"), 0o644))
			must(t, unix.Mkfifo(at("pipe"), 0o600))
			for name, target := range map[string]string{
				"todir":    "dir",
				"toold":    at("old"),
				"dangling": "target",
				"around":   "around",
			} {
				must(t, os.Symlink(target, at(name)))
			}
			err := copyTo(t, at("src/"+c.src), at(c.dst))
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("the error is %v, not %q", err, c.want)
				}
				return
			}
			if data, err := os.ReadFile(at(c.want)); string(data) != "src" {
				t.Errorf("%s holds %q, %v", c.want, data, err)
			}
			if st, err := os.Stat(at("dir")); err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("the directory that was there is now %v, %v", st.Mode(), err)
			}
		})
	}
}

func TestSources(t *testing.T) {
	base := t.TempDir()
	must(t, os.Mkdir(base+"/tree", 0o755))
	must(t, os.WriteFile(base+"/tree/in", nil, 0o644))
	must(t, os.Symlink("tree", base+"/link"))
	for _, c := range []struct {
		src    string
		follow bool
		want   string // names in the archive
	}{
		{"tree", false, "tree/ tree/in"},
		{"tree/", false, "tree/ tree/in"},
		{"tree/.", false, "./ ./in"},
		{"link", false, "link"},
		{"link", true, "link/ link/in"},
		{"link/", false, "link/ link/in"},
		{"link/.", false, "./ ./in"},
		{"tree/in", false, "in"},
	} {
		r := tar.NewReader(bytes.NewReader(archived(t, base+"/"+c.src, WriteOptions{Name: Base(c.src), Follow: c.follow})))
		var names []string
		for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
			must(t, err)
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s is %q, not %q", c.src, got, c.want)
		}
	}
	for src, want := range map[string]string{"/": ".", "..": ".", ".": ".", "a/..": ".", "./a": "a", "a/./": "."} {
		if got := Base(src); got != want {
			t.Errorf("the name of %q is %q, not %q", src, got, want)
		}
	}
	for src, words := range map[string]string{
		"nothing":   "no such file",
		"tree/in/.": "not a directory",
		"tree/in/":  "not a directory",
	} {
		_, err := Write(context.Background(), io.Discard, base+"/"+src, WriteOptions{Name: Base(src)})
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", src, err)
		}
	}
}

// TestHolesAreNotSent checks that a file of 10 GiB that is mostly a hole is sent without the hole,
// and has the hole again.
func TestHolesAreNotSent(t *testing.T) {
	base := t.TempDir()
	f, err := os.Create(base + "/f")
	must(t, err)
	const size = 10 << 30
	must(t, f.Truncate(size))
	for _, at := range []int64{0, 1 << 20, 5<<30 + 12345, size - 1<<20} {
		_, err := f.WriteAt([]byte("data"), at)
		must(t, err)
	}
	must(t, f.Close())
	data := archived(t, base+"/f", WriteOptions{Name: "f"})
	if len(data) > 1<<20 {
		t.Errorf("%d bytes are sent", len(data))
	}
	must(t, copyTo(t, base+"/f", base+"/g"))
	var st unix.Stat_t
	must(t, unix.Stat(base+"/g", &st))
	if st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("the copy has %d bytes and takes %d", st.Size, st.Blocks*512)
	}
	g, err := os.Open(base + "/g")
	must(t, err)
	defer g.Close()
	for _, at := range []int64{0, 1 << 20, 5<<30 + 12345, size - 1<<20} {
		b := make([]byte, 4)
		if _, err := g.ReadAt(b, at); err != nil || string(b) != "data" {
			t.Errorf("at %d is %q, %v", at, b, err)
		}
	}
	h, err := tar.NewReader(bytes.NewReader(data)).Next()
	if err != nil || h.Size != size || h.Name != "f" {
		t.Errorf("the standard library reads %+v, %v", h, err)
	}
}

// TestAFileOfManyPieces checks that a file with too many pieces loses its smallest holes and no
// data.
func TestAFileOfManyPieces(t *testing.T) {
	base := t.TempDir()
	f, err := os.Create(base + "/f")
	must(t, err)
	for i := range int64(2*maxPieces + 10) {
		_, err := f.WriteAt([]byte{byte(i) | 1}, i*8192)
		must(t, err)
	}
	must(t, f.Close())
	must(t, copyTo(t, base+"/f", base+"/g"))
	want, err := os.ReadFile(base + "/f")
	must(t, err)
	if got, err := os.ReadFile(base + "/g"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("it is another file: %v", err)
	}
}

// TestDirectWrites checks that a large file written past the page cache is right at every length.
func TestDirectWrites(t *testing.T) {
	for _, base := range []string{onDisk(t), inMemory(t)} {
		for _, size := range []int{bulkLeast - 1, bulkLeast, bulkLeast + 1, bulkLeast + pageSize, bulkSize, 2 * bulkSize,
			3*bulkSize + 511, 4*bulkSize + pageSize} {
			data := make([]byte, size)
			rand.NewChaCha8([32]byte{}).Read(data)
			must(t, os.WriteFile(base+"/f", data, 0o644))
			_, err := Extract(context.Background(), bytes.NewReader(archived(t, base+"/f", WriteOptions{Name: "f"})), base+"/g",
				ExtractOptions{Direct: true})
			must(t, err)
			if got, err := os.ReadFile(base + "/g"); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes: the copy has %d or differs: %v", base, size, len(got), err)
			}
		}
	}
}

// inMemory returns a directory of a file system that may not support direct writes.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "archive")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestDirectWritesThatFail checks that a failure of a write in the background is reported, with a
// queue and without.
func TestDirectWritesThatFail(t *testing.T) {
	readOnly := t.TempDir() + "/f"
	must(t, os.WriteFile(readOnly, nil, 0o644))
	for name, want := range map[string]struct {
		flag int
		err  error
	}{readOnly: {os.O_RDONLY, unix.EBADF}, "/dev/full": {os.O_WRONLY, unix.ENOSPC}} {
		f, err := os.OpenFile(name, want.flag, 0)
		must(t, err)
		var b bulk
		must(t, b.begin(int(f.Fd()), 0))
		err = b.write(make([]byte, 3*bulkSize))
		if err == nil {
			err = b.flush()
		}
		if !errors.Is(err, want.err) {
			t.Errorf("%s: %v", name, err)
		}
		b.close()
		f.Close()
	}
}

// TestTimesOfDirectoriesInAnyOrder checks that, in any order of the archive, each directory gets
// its own time, and that a directory which existed before gets a new one.
func TestTimesOfDirectoriesInAnyOrder(t *testing.T) {
	dst := t.TempDir()
	old := time.Unix(1_000_000, 0)
	must(t, os.Mkdir(dst+"/there", 0o755))
	must(t, os.Chtimes(dst+"/there", old, old))
	awaitTick(t, dst+"/there")
	stamped := func(h tar.Header) tar.Header { h.ModTime = old; return h }
	data := tarOf(stamped(dir("a")), stamped(dir("b")), file("a/late"), file("b/late"), file("a/later"), file("there/new"))
	_, err := Extract(context.Background(), bytes.NewReader(data), dst, ExtractOptions{Into: true})
	must(t, err)
	for name, kept := range map[string]bool{"a": true, "b": true, "there": false} {
		if st, err := os.Stat(dst + "/" + name); err != nil || st.ModTime().Equal(old) != kept {
			t.Errorf("the time of %s is %v, %v", name, st.ModTime(), err)
		}
	}
}

// awaitTick returns when the coarse clock, by which an extraction knows its own changes, has passed the last change of
// a file. Since Linux 6.13 that change may have a finer time than the clock, which then is two ticks late.
func awaitTick(t testing.TB, path string) {
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	for now := (unix.Timespec{}); !before(st.Ctim, now); {
		must(t, unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now))
	}
}

// TestHardLinksOfForeignArchives checks archives of other programs, which do not announce the
// targets of hard links.
func TestHardLinksOfForeignArchives(t *testing.T) {
	o := newOutside(t)
	_, err := Extract(context.Background(), bytes.NewReader(tarOf(file("f"), hardLink("d/g", "f"), hardLink("h", "d/g"))),
		o.dst, ExtractOptions{Into: true, Foreign: true})
	must(t, err)
	if st, err := os.Stat(o.dst + "/f"); err != nil || st.Sys().(*syscall.Stat_t).Nlink != 3 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err = Extract(context.Background(), bytes.NewReader(tarOf(hardLink("g", "mine"))), o.dst,
		ExtractOptions{Into: true, Foreign: true}); err == nil {
		t.Error("a link to a file that was there before is made")
	}
	o.check(t)
}

// TestWhatIsNotKeptIsCounted checks that what cannot be kept is counted and not lost silently.
func TestWhatIsNotKeptIsCounted(t *testing.T) {
	base := t.TempDir()
	must(t, os.Mkdir(base+"/d", 0o755))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: base + "/d/socket"}))
	report, err := Write(context.Background(), io.Discard, base+"/d", WriteOptions{Name: "d"})
	if must(t, err); report.Sockets != 1 {
		t.Errorf("%+v", report)
	}
	h := file("f")
	h.PAXRecords = map[string]string{"SCHILY.xattr.security.selinux": "label", "SCHILY.xattr.nosuchspace.x": "y"}
	report, err = Extract(context.Background(), bytes.NewReader(tarOf(h)), base+"/f", ExtractOptions{})
	if must(t, err); report.Attributes != 2 {
		t.Errorf("%+v", report)
	}
	report, err = Extract(context.Background(), bytes.NewReader(tarOf(h)), base+"/f", ExtractOptions{NoXattrs: true})
	if must(t, err); report.Attributes != 0 {
		t.Errorf("%+v", report)
	}
}

// TestABrokenCopyLeavesNoHalfFile checks that a stream that breaks in the middle leaves the
// existing file and no other.
func TestABrokenCopyLeavesNoHalfFile(t *testing.T) {
	base := t.TempDir()
	must(t, os.WriteFile(base+"/f", bytes.Repeat([]byte("new"), 100_000), 0o644))
	data := archived(t, base+"/f", WriteOptions{Name: "f"})
	must(t, os.WriteFile(base+"/f", []byte("old"), 0o644))
	for _, cut := range []int{700, 1600, 200_000, len(data) - 1100} {
		broken := errors.New("broken")
		_, err := Extract(context.Background(), io.MultiReader(bytes.NewReader(data[:cut]), failing{broken}), base+"/f",
			ExtractOptions{})
		if !errors.Is(err, broken) {
			t.Errorf("the error is %v", err)
		}
		if got := describe(t, base); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"old"`) {
			t.Errorf("behind %d bytes there is\n%s", cut, got)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestMemoryDoesNotGrowWithTheEntries checks that the memory of an extraction does not depend on
// the number of entries.
func TestMemoryDoesNotGrowWithTheEntries(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	r, w := io.Pipe()
	grown := make(chan int64, 1)
	go func() {
		var start uint64
		for i := range 3000 {
			if i == 100 {
				start = heap()
			}
			h := pax.Header{Kind: pax.KindFile, Name: fmt.Sprintf("d%d/file%d", i/10, i), Mode: 0o644}
			b, _ := h.Encode()
			w.Write(b)
		}
		grown <- int64(heap() - start)
		w.Write(make([]byte, 2*pax.BlockSize))
		w.Close()
	}()
	_, err := Extract(context.Background(), r, t.TempDir(), ExtractOptions{Into: true})
	must(t, err)
	if n := <-grown; n > 128<<10 {
		t.Errorf("3000 files hold %d bytes", n)
	}
}

// TestSetuidNeedsItsOwner checks that setuid is dropped if the process may not give the file its
// owner.
func TestSetuidNeedsItsOwner(t *testing.T) {
	h := file("f")
	h.Mode, h.Uid, h.Gid = 0o4755, 3, 4
	base := t.TempDir()
	report, err := Extract(context.Background(), bytes.NewReader(tarOf(h)), base+"/f",
		ExtractOptions{Owners: true, Rights: true})
	must(t, err)
	want := map[bool]string{true: "-rwsr-xr-x 0", false: "-rwxr-xr-x 2"}[os.Geteuid() == 0]
	var st unix.Stat_t
	must(t, unix.Stat(base+"/f", &st))
	if got := fmt.Sprintf("-rw%cr-xr-x %d", map[bool]byte{true: 's', false: 'x'}[st.Mode&0o4000 != 0],
		report.Owners+report.Modes); got != want {
		t.Errorf("it is %s, not %s", got, want)
	}
}

// TestFramesEndOnlyByTheirLastFrame checks that only the last frame ends the frames without an
// error.
func TestFramesEndOnlyByTheirLastFrame(t *testing.T) {
	var whole bytes.Buffer
	frame.Write(&whole, frame.Stdout, []byte("data"))
	cut := whole.Len()
	frame.Write(&whole, frame.Exit, []byte("{}"))
	for n, want := range map[int]string{whole.Len(): "", cut: "went away", cut + 3: "went away", cut - 1: "went away"} {
		f := NewFrames(frame.NewReader(bytes.NewReader(whole.Bytes()[:n])), frame.Stdout, frame.Exit)
		data, err := io.ReadAll(f)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil &&
			string(data)+string(f.Last()) != "data{}" {
			t.Errorf("behind %d bytes: %q, %v", n, data, err)
		}
	}
}
