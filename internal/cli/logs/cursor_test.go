package logs

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/frame"
)

// TestACursorMovesWhileOutputComes: the file is written at once, and then at most once in pace, so that a call that is
// killed has a cursor.
func TestACursorMovesWhileOutputComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "at")
		c := newCursors(path)
		web := key{idOf("web"), mainOutput}
		stop := c.keep(func(err error) { t.Error(err) })
		check := func(want string) {
			t.Helper()
			synctest.Wait()
			got, _ := os.ReadFile(path)
			if want != "" {
				want = web.vm + " main " + want + "\n"
			}
			if string(got) != want {
				t.Errorf("the file is %q, not %q", got, want)
			}
		}
		check("")
		c.set(web, 1)
		check("1")
		c.set(web, 2)
		c.set(web, 3)
		check("1")
		time.Sleep(pace) // on the test's own clock
		check("3")
		c.set(web, 4)
		if err := stop(); err != nil {
			t.Error(err)
		}
		check("4")
	})
}

// TestACursorThatCannotBeWritten is told once while output comes, and at the end.
func TestACursorThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCursors(filepath.Join(t.TempDir(), "no", "at"))
		warnings := 0
		stop := c.keep(func(error) { warnings++ })
		for i := range uint64(3) {
			c.set(key{idOf("web"), mainOutput}, i)
			time.Sleep(2 * pace) // on the test's own clock
		}
		if err := stop(); err == nil || warnings != 1 {
			t.Errorf("there are %d warnings, and %v", warnings, err)
		}
	})
}

// TestCallsShareAFile: each keeps what the others have written, also when it takes what a killed call has left.
func TestCallsShareAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "at")
	left := filepath.Join(filepath.Dir(path), ".at.new")
	if err := os.WriteFile(left, bytes.Repeat([]byte("left "), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		c, err := readCursors(path)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for i := range uint64(50) {
				c.set(key{idOf(name), mainOutput}, i+1)
				if err := c.write(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c, err := readCursors(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if at, _ := c.of(key{idOf(name), mainOutput}); at != 50 {
			t.Errorf("the cursor of %s is %d", name, at)
		}
	}
	list, err := os.ReadDir(filepath.Dir(path))
	if st, _ := os.Stat(path); err != nil || len(list) != 1 || st.Mode() != 0o600 {
		t.Errorf("there are %v, %v; the mode is %v", list, err, st.Mode())
	}
}

// atRead is a reader that calls a function and ends.
type atRead func()

func (f atRead) Read([]byte) (int, error) { f(); return 0, io.EOF }

// TestACursorIsNeverAheadOfWhatIsShown: what is held back until a line ends does not count before.
func TestACursorIsNeverAheadOfWhatIsShown(t *testing.T) {
	var to bytes.Buffer
	alone := func() stream { return newRaw(&to) }
	times := func() stream { return &lines{mu: new(sync.Mutex), w: &to, times: true, alone: true} }
	for name, tt := range map[string]struct {
		stream func() stream
		want   []uint64 // after each piece, and at the end
	}{
		"bytes": {alone, []uint64{6, 9, 11, 13, 13}},
		"lines": {times, []uint64{4, 4, 11, 11, 13}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &show{App: &command.App{Stdout: &to, Stderr: &to}, view: banger.LogView{Tail: -1}, cursors: newCursors("")}
			src := source{vm: "web", key: key{idOf("web"), mainOutput}}
			check := func(i int) {
				if at, _ := s.cursors.of(src.key); at != tt.want[i] {
					t.Errorf("after piece %d the cursor is %d, not %d", i, at, tt.want[i])
				}
			}
			var parts []io.Reader
			for i, p := range []said{{0, 0, out, "one\ntw"}, {6, 0, errs, "no\n"}, {9, 0, out, "o\n"}, {11, 0, errs, "en"}} {
				b := bytes.NewBuffer(frame.AppendStamp(nil, uint64(p.position), began))
				frame.Write(b, p.stream, []byte(p.text))
				parts = append(parts, b, atRead(func() { check(i) }))
			}
			src.open = func(context.Context, banger.LogView) (io.ReadCloser, bool, error) {
				return io.NopCloser(io.MultiReader(parts...)), true, nil
			}
			if err := s.output(t.Context(), src, tt.stream(), tt.stream()); err != nil {
				t.Error(err)
			}
			check(len(tt.want) - 1)
		})
	}
}
