package output_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/output"
)

// at returns a time of a record: n seconds after now.
func at(n int) time.Time { return now.Add(time.Duration(n) * time.Second) }

// shown returns what frames have, as "position@second text|" for each frame of data.
func shown(t *testing.T, r io.Reader) (text string) {
	t.Helper()
	frames := frame.NewReader(r)
	stamp := ""
	for {
		typ, p, err := frames.Next()
		switch {
		case err == io.EOF:
			return text
		case err != nil:
			t.Fatal(err)
		case typ == frame.Stamp:
			position, at, ok := frame.ParseStamp(p)
			if !ok || stamp != "" {
				t.Fatalf("a stamp of %d bytes comes behind %q", len(p), stamp)
			}
			stamp = fmt.Sprintf("%d@%d ", position, int(at.Sub(now).Seconds()))
		default:
			text += stamp + strings.ReplaceAll(string(p), "\n", "/") + "|"
			stamp = ""
		}
	}
}

// see returns what Read writes of v, with stamps.
func see(t *testing.T, path string, v banger.LogView) string {
	t.Helper()
	v.Stamps = true
	var b bytes.Buffer
	if err := output.Read(path, v, &b); err != nil {
		t.Fatal(err)
	}
	return shown(t, &b)
}

// TestAViewOfTheOutput shows what each field of a view selects, and that a follower's view is the same.
func TestAViewOfTheOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	l := open(t, path)
	l.Append(frame.Stdout, at(1), []byte("one\ntw"))
	l.Append(frame.Stderr, at(2), []byte("o\n"))
	l.Append(frame.Stdout, at(3), []byte("three\nfour\n"))
	l.Append(frame.Stdout, at(9), []byte("late\n"))
	l.Close()
	for name, c := range map[string]struct {
		view banger.LogView
		want string
	}{
		"all":                 {banger.LogView{Tail: -1}, "0@1 one/tw|6@2 o/|8@3 three/four/|19@9 late/|"},
		"no line":             {banger.LogView{}, ""},
		"a line":              {banger.LogView{Tail: 1}, "19@9 late/|"},
		"part of a record":    {banger.LogView{Tail: 2}, "14@3 four/|19@9 late/|"},
		"since":               {banger.LogView{Tail: -1, Since: at(2)}, "6@2 o/|8@3 three/four/|19@9 late/|"},
		"until":               {banger.LogView{Tail: -1, Until: at(2)}, "0@1 one/tw|6@2 o/|"},
		"since and until":     {banger.LogView{Tail: -1, Since: at(2), Until: at(8)}, "6@2 o/|8@3 three/four/|"},
		"a line of a window":  {banger.LogView{Tail: 1, Since: at(2), Until: at(8)}, "14@3 four/|"},
		"since the future":    {banger.LogView{Tail: -1, Since: at(10)}, ""},
		"until before all":    {banger.LogView{Tail: -1, Until: at(0)}, ""},
		"a position":          {banger.LogView{Tail: -1, Position: 8}, "8@3 three/four/|19@9 late/|"},
		"inside of a record":  {banger.LogView{Tail: -1, Position: 10}, "10@3 ree/four/|19@9 late/|"},
		"the end":             {banger.LogView{Tail: -1, Position: 24}, ""},
		"behind the end":      {banger.LogView{Tail: 1, Position: 25}, "19@9 late/|"},
		"a line behind it":    {banger.LogView{Tail: 3, Position: 10}, "10@3 ree/four/|19@9 late/|"},
		"fewer lines than n":  {banger.LogView{Tail: 9, Position: 19}, "19@9 late/|"},
		"position and a time": {banger.LogView{Tail: -1, Position: 10, Until: at(3)}, "10@3 ree/four/|"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := see(t, path, c.view); got != c.want {
				t.Errorf("it reads %q, not %q", got, c.want)
			}
			c.view.Stamps = true
			var b bytes.Buffer
			l.Follow(t.Context(), c.view, &b)
			if got := shown(t, &b); got != c.want {
				t.Errorf("it follows %q, not %q", got, c.want)
			}
		})
	}
}

// TestAFollowerSeesItsWindow: what is appended later is selected too, and the first record behind the window ends it.
func TestAFollowerSeesItsWindow(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "output.log"))
	l.Append(frame.Stdout, at(1), []byte("early\n"))
	r, w := io.Pipe()
	far := time.Now().Add(time.Hour) // the clock does not reach it
	go func() {
		l.Follow(context.Background(), banger.LogView{Tail: -1, Since: at(2), Until: far, Stamps: true}, w)
		w.Close()
	}()
	l.Append(frame.Stdout, at(1), []byte("also early\n"))
	l.Append(frame.Stdout, at(2), []byte("wanted\n"))
	l.Append(frame.Stdout, far, []byte("the last\n"))
	l.Append(frame.Stdout, far.Add(1), []byte("late\n"))
	if got := shown(t, r); !strings.HasPrefix(got, "17@2 wanted/|24@") || !strings.HasSuffix(got, " the last/|") {
		t.Errorf("it shows %q", got)
	}
}

// TestTheClockEndsAFollower when nothing more comes. What is there by then is shown.
func TestTheClockEndsAFollower(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "output.log"))
	l.Append(frame.Stdout, at(1), []byte("one\n"))
	for _, until := range []time.Time{at(1), time.Now().Add(10 * time.Millisecond)} {
		var b bytes.Buffer
		l.Follow(context.Background(), banger.LogView{Tail: -1, Until: until, Stamps: true}, &b)
		if got := shown(t, &b); got != "0@1 one/|" {
			t.Errorf("until %s it shows %q", until, got)
		}
	}
}

// TestPositionsGoOn over rotations, over boots, and over what is lost because the log is closed.
func TestPositionsGoOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	line := []byte(strings.Repeat("x", 9_999) + "\n")
	total := 0
	for boot := range 3 {
		l := open(t, path)
		for range output.MaxFile / len(line) { // a little less than a file
			l.Append(frame.Stdout, at(boot), line)
			total += len(line)
		}
		want := fmt.Sprintf("%d@%d %s/|", total-len(line), boot, line[:9_999])
		if got := see(t, path, banger.LogView{Tail: 1}); got != want {
			t.Errorf("in boot %d the last line is %.30q, not %.30q", boot, got, want)
		}
		l.Close()
	}
	// What was written long ago is gone: the first stamp tells where the rest begins.
	var first, asked int
	got := see(t, path, banger.LogView{Tail: -1, Position: 5})
	if _, err := fmt.Sscanf(got, "%d@%d ", &first, &asked); err != nil || first <= 5 || first%len(line) != 0 {
		t.Errorf("the rest begins with %.30q", got)
	}
	if kept := strings.Count(got, "|"); first+kept*len(line) != total {
		t.Errorf("%d records from %d on are kept of %d bytes", kept, first, total)
	}
	// An older file whose successor has no record yet.
	check(t, os.Rename(path, path+".1"))
	l := open(t, path)
	l.Append(frame.Stderr, at(7), []byte("behind\n"))
	if got, want := see(t, path, banger.LogView{Tail: 1}), fmt.Sprintf("%d@7 behind/|", total); got != want {
		t.Errorf("behind an older file comes %q, not %q", got, want)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// earlier appends a record to a file as a banger did that knew no positions.
func earlier(t *testing.T, path string, at time.Time, text string) {
	t.Helper()
	b := binary.BigEndian.AppendUint32([]byte{byte(frame.Stdout), 0, 0, 0}, uint32(len(text)))
	b = append(b, make([]byte, 8)...)
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
	b = append(b, text...)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(t, err)
	_, err = f.Write(b)
	check(t, err)
	check(t, f.Close())
}

// TestRecordsOfAnEarlierBanger count on from those before. This banger's records say where they are, so those before
// keep their positions when the first ones are gone.
func TestRecordsOfAnEarlierBanger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	earlier(t, path+".1", at(1), "first\n")
	earlier(t, path, at(2), "second\n")
	if got, want := see(t, path, all), "0@1 first/|6@2 second/|"; got != want {
		t.Errorf("old files have %q, not %q", got, want)
	}
	l := open(t, path)
	l.Append(frame.Stdout, at(3), []byte("new\n"))
	l.Close()
	earlier(t, path, at(4), "old again\n")
	l = open(t, path)
	l.Append(frame.Stdout, at(5), []byte("end\n"))
	l.Close()
	const rest = "6@2 second/|13@3 new/|17@4 old again/|27@5 end/|"
	if got := see(t, path, all); got != "0@1 first/|"+rest {
		t.Errorf("mixed files have %q", got)
	}
	check(t, os.Remove(path+".1"))
	if got := see(t, path, all); got != rest {
		t.Errorf("without the older file there is %q, not %q", got, rest)
	}
}

// TestAnEarlierBangerReadsTheRecords: the position is in bytes that it does not look at, but of which it makes the sum.
func TestAnEarlierBangerReadsTheRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	l := open(t, path)
	l.Append(frame.Stdout, at(1), bytes.Repeat([]byte("x"), 300))
	l.Append(frame.Stderr, at(2), []byte("ab"))
	data, err := os.ReadFile(path)
	check(t, err)
	second := data[24+300:]
	sum := binary.BigEndian.Uint32(second[8:])
	if fmt.Sprintf("% x", second[:8]) != "09 00 00 00 00 00 00 02" || binary.BigEndian.Uint32(second[12:]) != 301 ||
		string(second[24:]) != "ab" {
		t.Errorf("the record is % x", second)
	}
	clear(second[8:12])
	if crc32.Checksum(second, crc32.MakeTable(crc32.Castagnoli)) != sum {
		t.Error("the sum is not that of an earlier banger")
	}
}

// TestForgedPositions are shown as they are, and stop no reader and no writer.
func TestForgedPositions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	for _, position := range []string{"\xff\xff\xff\xff\xff\xff\xff", "\x00\x00\x00\x00\x00\x00\x01"} {
		b := binary.BigEndian.AppendUint32([]byte{byte(frame.Stdout), position[0], position[1], position[2]}, 2)
		b = append(b, "\x00\x00\x00\x00"+position[3:]...)
		b = binary.BigEndian.AppendUint64(b, 1<<63)
		b = append(b, "x\n"...)
		binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		old, _ := os.ReadFile(path)
		check(t, os.WriteFile(path, append(old, b...), 0o600))
		l := open(t, path)
		l.Append(frame.Stdout, at(1), []byte("y\n"))
		l.Append(frame.Stdout, at(1), []byte("z\n"))
		l.Close()
		for _, v := range []banger.LogView{all, {Tail: 1, Position: 1 << 63}, {Tail: -1, Position: 1, Since: at(1)}} {
			if got := see(t, path, v); !strings.HasSuffix(got, " z/|") {
				t.Errorf("%+v shows %q", v, got)
			}
		}
	}
}
