package transcript

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/frame"
)

const room = 1 << 40

func open(t *testing.T, dir string, q *Quota) *Transcript {
	t.Helper()
	l, err := Open(dir, q)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// say appends text to a stream.
func say(l *Transcript, stream frame.Type, text string) uint64 {
	return l.Append(stream, time.Unix(7, 8), append(make([]byte, Head), text...))
}

// all reads what can be read from a position on, and says what is missing.
func all(l *Transcript, from uint64) string {
	r := l.Read(from)
	defer r.Close()
	var got strings.Builder
	for at := from; ; {
		rec, _ := r.Next()
		if rec.Data == nil {
			return got.String()
		}
		if rec.Position != at {
			fmt.Fprintf(&got, "[%d gone]", rec.Position-at)
		}
		got.Write(rec.Data)
		at = rec.end()
	}
}

func TestReadersBeginAtAnyByte(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	l := open(t, dir, NewQuota(room, room))
	say(l, frame.Stdout, "first\n")
	say(l, frame.Stderr, "second\n")
	if end := say(l, frame.Stdout, "third\n"); end != 19 || l.End() != 19 || l.First() != 0 {
		t.Fatalf("the end is %d and %d, the first byte %d", end, l.End(), l.First())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	reopened := open(t, dir, NewQuota(room, room))
	for name, l := range map[string]*Transcript{"in memory": l, "in the file": reopened} {
		for from := range 20 {
			if got, want := all(l, uint64(from)), "first\nsecond\nthird\n"[from:]; got != want {
				t.Errorf("%s from %d: %q, not %q", name, from, got, want)
			}
		}
		if got := all(l, 500); got != "" {
			t.Errorf("%s, behind the end: %q", name, got)
		}
		r := l.Read(8)
		rec, _ := r.Next()
		if rec.Stream != frame.Stderr || rec.Position != 8 || !rec.Time.Equal(time.Unix(7, 8)) {
			t.Errorf("%s: the record is %+v", name, rec)
		}
		r.Close()
	}
	say(reopened, frame.Stdout, "again\n")
	if got := all(reopened, 13); got != "third\nagain\n" {
		t.Errorf("after a reopening: %q", got)
	}
}

func TestTheOldestFilesMakeRoom(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "out"), NewQuota(room, 3*SegmentSize))
	piece := strings.Repeat("x", 100_000)
	for range 60 {
		say(l, frame.Stdout, piece)
	}
	files, err := filepath.Glob(l.dir + "/*")
	if err != nil || len(files) > 3 {
		t.Fatalf("there are %d files, %v", len(files), err)
	}
	got := all(l, 0)
	gone, rest, _ := strings.Cut(got, " gone]")
	if gone != fmt.Sprintf("[%d", l.First()) || uint64(len(rest)) != 60*100_000-l.First() || l.First() == 0 {
		t.Errorf("%s bytes are gone, and %d left of %d; the first is %d", gone, len(rest), l.End(), l.First())
	}
}

// TestAllTranscriptsShareTheirRoom has one that writes much and several that write little: the first one pays.
func TestAllTranscriptsShareTheirRoom(t *testing.T) {
	q := NewQuota(8*SegmentSize, room)
	dir := t.TempDir()
	var small []*Transcript
	for i := range 4 {
		small = append(small, open(t, filepath.Join(dir, fmt.Sprint(i)), q))
		say(small[i], frame.Stdout, "little")
	}
	big := open(t, filepath.Join(dir, "big"), q)
	for range 100 {
		say(big, frame.Stdout, strings.Repeat("x", 200_000))
	}
	var total int64
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		total += st.Size()
		return err
	})
	if err != nil || total > 8*SegmentSize || big.First() == 0 {
		t.Errorf("%d bytes are on the disk, %v; the first byte of the large one is %d", total, err, big.First())
	}
	for i, l := range small {
		if got := all(l, 0); got != "little" {
			t.Errorf("transcript %d says %q", i, got)
		}
	}
}

// TestADiskWithoutRoomLosesBytes takes the directory away, as a full disk takes the room.
func TestADiskWithoutRoomLosesBytes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	l := open(t, dir, NewQuota(room, room))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		say(l, frame.Stdout, strings.Repeat("x", 50_000))
	}
	if l.Lost() != 150_000 {
		t.Errorf("%d bytes are lost", l.Lost())
	}
	const kept = recentSize - recordCost
	if got := all(l, 0); got != fmt.Sprintf("[%d gone]%s", 150_000-kept, strings.Repeat("x", kept)) {
		t.Errorf("the reader got %.40q and more, %d bytes", got, len(got))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.again = time.Time{} // the pause is over
	say(l, frame.Stdout, strings.Repeat("y", 60_000))
	say(l, frame.Stdout, strings.Repeat("z", 60_000))
	want := "[150000 gone]" + strings.Repeat("y", 60_000) + strings.Repeat("z", 60_000)
	if got := all(l, 0); got != want {
		t.Errorf("with room again the reader got %.40q and more, %d bytes", got, len(got))
	}
}

// TestMemoryHasWhatTheDiskLacks has no room for records between two that the disk has. The first of them fits into
// memory in part.
func TestMemoryHasWhatTheDiskLacks(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "out"), NewQuota(room, room))
	say(l, frame.Stdout, "begun\n")
	file := l.file
	unwritable, err := os.Open(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer unwritable.Close()
	l.file = unwritable
	say(l, frame.Stdout, strings.Repeat("x", 40_000))
	say(l, frame.Stdout, strings.Repeat("y", 40_000))
	l.file = file
	say(l, frame.Stdout, "middle\n")
	say(l, frame.Stdout, "end\n")
	kept := strings.Repeat("x", 40_000) + strings.Repeat("y", 40_000) + "middle\nend\n"
	gone := len(kept) - (recentSize - 3*recordCost)
	kept = kept[gone:]
	if got := all(l, 0); got != fmt.Sprintf("begun\n[%d gone]%s", gone, kept) {
		t.Errorf("the reader got %.40q and more, %d bytes", got, len(got))
	}
	if got := all(l, 40_007); got != kept[40_001-gone:] {
		t.Errorf("from the middle the reader got %.40q and more, %d bytes", got, len(got))
	}
}

func TestAPowerCutLeavesWholeRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	l := open(t, dir, NewQuota(room, room))
	say(l, frame.Stdout, "whole\n")
	say(l, frame.Stdout, "torn\n")
	l.Close()
	file := filepath.Join(dir, segmentName(0))
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := Head + 6; cut < len(whole); cut++ {
		os.Remove(filepath.Join(dir, segmentName(6))) // of the cut before
		if err := os.WriteFile(file, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir, NewQuota(room, room))
		if got := say(l, frame.Stdout, "next\n"); got != 11 || all(l, 0) != "whole\nnext\n" {
			t.Fatalf("cut at %d: the end is %d, the text %q", cut, got, all(l, 0))
		}
		l.Close()
	}
}

// TestFilesOfRootInTheGuestAreHarmless has files that no transcript has written.
func TestFilesOfRootInTheGuestAreHarmless(t *testing.T) {
	head := func(stream byte, n int, position uint64) []byte {
		b := make([]byte, Head)
		putHead(b, Record{Stream: frame.Type(stream), Position: position, Time: time.Unix(0, 0)}, n)
		return b
	}
	for name, content := range map[string][]byte{
		"no record":               bytes.Repeat([]byte{7}, 100),
		"zeros":                   make([]byte, 5000),
		"an unknown stream":       append(head(99, 1, 0), 'x'),
		"more data than allowed":  append(head(8, frame.MaxData+1, 0), make([]byte, frame.MaxData+1)...),
		"less data than it says":  append(head(8, 100, 0), 'x'),
		"a position of 2^64-1":    append(head(8, 1, 1<<64-1), 'x'),
		"positions that go back":  append(append(head(8, 1, 5), 'x'), append(head(8, 1, 2), 'y')...),
		"a record that overlaps":  append(append(head(8, 2, 0), "xx"...), append(head(8, 2, 1), "yy"...)...),
		"a length of 2^32-1":      append(head(8, -1, 0), 'x'),
		"a file longer than ours": make([]byte, 3*SegmentSize),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range []string{segmentName(0), segmentName(1 << 40), "ffffffffffffffff", "other"} {
				if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := open(t, dir, NewQuota(room, room))
			for _, from := range []uint64{0, 1, 3, 1 << 40, 1<<64 - 1} {
				all(l, from)
			}
			end := l.End()
			if say(l, frame.Stdout, "ours"); !strings.HasSuffix(all(l, end), "ours") {
				t.Errorf("what follows is %q", all(l, end))
			}
		})
	}
}

// TestReadersFollowWriters has two writers and three readers, one of them slow.
func TestReadersFollowWriters(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "out"), NewQuota(room, room))
	const lines, size = 2000, 500
	var writers, readers sync.WaitGroup
	for _, stream := range []frame.Type{frame.Stdout, frame.Stderr} {
		writers.Go(func() {
			for i := range lines {
				say(l, stream, fmt.Sprintf("%0*d", size, i))
			}
		})
	}
	for i := range 3 {
		readers.Go(func() {
			r := l.Read(0)
			defer r.Close()
			var at uint64
			next := map[frame.Type][]byte{}
			for n := 0; ; n++ {
				rec, more := r.Next()
				if rec.Data == nil {
					if more == nil {
						break
					}
					<-more
					continue
				}
				if rec.Position != at {
					t.Errorf("reader %d: byte %d follows %d", i, rec.Position, at)
				}
				at = rec.end()
				next[rec.Stream] = append(next[rec.Stream], rec.Data...)
			}
			for stream, data := range next {
				for line := range lines {
					if want := fmt.Sprintf("%0*d", size, line); string(data[line*size:][:size]) != want {
						t.Errorf("reader %d, stream %d: line %d is wrong", i, stream, line)
						return
					}
				}
			}
			if at != 2*lines*size {
				t.Errorf("reader %d got %d bytes", i, at)
			}
		})
	}
	writers.Wait()
	l.Close()
	readers.Wait()
}

func TestARemovedTranscriptGivesItsRoomBack(t *testing.T) {
	q := NewQuota(2*SegmentSize, room)
	dir := t.TempDir()
	for i := range 5 {
		l := open(t, filepath.Join(dir, fmt.Sprint(i)), q)
		if say(l, frame.Stdout, "text"); all(l, 0) != "text" {
			t.Errorf("transcript %d: %q", i, all(l, 0))
		}
		if err := l.Remove(); err != nil {
			t.Error(err)
		}
	}
	if len(q.members) != 0 {
		t.Errorf("%d transcripts count", len(q.members))
	}
}
