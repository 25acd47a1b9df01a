package screen

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// numbers is a source of numbers that look random and are the same in each run (xorshift).
type numbers uint64

func (n *numbers) next() uint64 {
	*n ^= *n << 13
	*n ^= *n >> 7
	*n ^= *n << 17
	return uint64(*n)
}

// noise returns random bytes. Many of them are parts of sequences.
func noise(seed uint64, size int) string {
	n := numbers(seed)
	parts := []string{"\x1b[", "\x1b]", "\x1bP", "\x1b", ";", ":", "?", ">", "65535", "0", "1", "4", "7", "1049", "6",
		"h", "l", "m", "r", "H", "J", "K", "L", "M", "P", "@", "X", "S", "T", "b", "世", "\u0301", "\n", "\r", "\t", "\b", "x",
		"\x1b7", "\x1b8", "\x1bM", "\x1b(0", "\x0e", "\x1bc", "\x1b\\", "\a", "38;2;1;2;3"}
	var b strings.Builder
	for b.Len() < size {
		if r := n.next(); r%8 == 0 {
			b.WriteByte(byte(r >> 8))
		} else {
			b.WriteString(parts[(r>>8)%uint64(len(parts))])
		}
	}
	return b.String()
}

// hostile are outputs that want to harm.
var hostile = map[string]string{
	"an endless title":          "\x1b]0;" + strings.Repeat("x", 1<<16),
	"an endless DCS":            "\x1bP" + strings.Repeat("x", 1<<16),
	"an endless APC":            "\x1b_" + strings.Repeat("x", 1<<16),
	"an endless link":           "\x1b]8;;" + strings.Repeat("x", 1<<16) + "\x1b\\x",
	"endless parameters":        "\x1b[" + strings.Repeat("1;", 1<<15),
	"endless digits":            "\x1b[" + strings.Repeat("9", 1<<16) + "A",
	"endless intermediates":     "\x1b[" + strings.Repeat("!", 1<<16) + "p",
	"endless ESC intermediates": "\x1b" + strings.Repeat("(", 1<<16) + "0",
	"endless combining marks":   "e" + strings.Repeat("\u0301", 1<<15),
	"marks everywhere":          strings.Repeat("e"+strings.Repeat("\u0301", 100), 500),
	"links everywhere":          strings.Repeat("\x1b]8;;"+strings.Repeat("u", 200)+"\ax", 500),
	"large numbers": strings.Repeat("\x1b[65535A\x1b[99999B\x1b[65535b\x1b[65535@\x1b[65535P\x1b[65535X\x1b[65535L"+
		"\x1b[65535M\x1b[65535S\x1b[65535T\x1b[65535I\x1b[65535Z\x1b[65535;65535H\x1b[65535;65535r", 100),
	"zeros": strings.Repeat("\x1b[0;0r\x1b[0;0H\x1b[0A\x1b[0@\x1b[0X\x1b[0 q\x1b[99 q\x1b[38;5m\x1b[48;2;1m"+
		"\x1b[4:9m", 100),
	"all screens": strings.Repeat("\x1b[?1049h\x1b[?47l\x1b[?1047h\x1b[?1048l\x1b[?1049l", 500),
	"queries":     strings.Repeat("\x1b[c\x1b[6n\x1b[>c\x1b[?2026$p\x1b]10;?\a\x1b[18t\x1bP+q544e\x1b\\", 500),
	"all bytes":   allBytes(),
	"noise 1":     noise(1, 1<<16),
	"noise 2":     noise(0xdecade, 1<<16),
	"noise 3":     noise(0xfedcba9876543210, 1<<16),
}

func allBytes() string {
	var b strings.Builder
	for i := range 1 << 14 {
		b.Write([]byte{byte(i), byte(i >> 6)})
	}
	return b.String()
}

func TestHostileOutputStaysBounded(t *testing.T) {
	for name, stream := range hostile {
		for _, size := range [][2]uint16{{24, 80}, {1, 1}} {
			t.Run(name, func(t *testing.T) {
				s := stopped(size[0], size[1])
				for at := 0; at < len(stream); at += 32 << 10 {
					end := min(len(stream), at+32<<10)
					s.Append([]byte(stream[at:end]), uint64(end))
					feed(s)
					drawing, _ := s.Draw(0, 0)
					if most := 4096 + 2*150*int(size[0])*int(size[1]); len(drawing) > most {
						t.Fatalf("a drawing has %d bytes, of at most %d", len(drawing), most)
					}
				}
				drawing, position := s.Draw(0, 0)
				if position != uint64(len(stream)) {
					t.Errorf("the position is %d of %d: the emulator was lost", position, len(stream))
				}
				want, got := s.terminal, newTerminal(s.terminal.rows, s.terminal.cols)
				got.write(drawing)
				if want.parser.tooLong {
					want.parser.begun, got.parser.begun = nil, nil
				}
				if got, want := dump(got), dump(want); got != want {
					t.Errorf("the drawing %q shows\n%s\ninstead of\n%s", drawing, got, want)
				}
			})
		}
	}
}

func TestHostileOutputEndsOnTheLargestScreen(t *testing.T) {
	s := open(t, 65535, 65535)
	if rows, cols := s.terminal.rows, s.terminal.cols; rows != maxRows || cols != maxCols {
		t.Fatalf("the size is %d rows and %d columns", rows, cols)
	}
	s.Append([]byte(strings.Repeat("\x1b[2J\n\x1b[65535L", 4000)), 1<<20)
	begin := time.Now()
	s.Draw(0, 0)
	if took := time.Since(begin); took > 10*patience {
		t.Errorf("Draw took %v", took)
	}
}

func TestADrawingEndsInsideTheSameSequence(t *testing.T) {
	for name, test := range map[string]struct{ begun, rest string }{
		"a title":               {"\x1b]0;half", " a title\ax"},
		"a long title":          {"\x1b]0;" + strings.Repeat("x", 1000), "y\ax"},
		"a long DCS":            {"\x1bPq" + strings.Repeat("x", 1000), "y\a\x1b\\x"},
		"a colour":              {"\x1b[3", "1mx"},
		"a long sequence":       {"\x1b[" + strings.Repeat("1;", 1000), "31mx"},
		"a character":           {"\xe4\xb8", "\x96x"},
		"a control in sequence": {"\x1b[\n3", "1mx"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newTerminal(24, 80), newTerminal(24, 80)
			a.write([]byte(test.begun))
			b.write([]byte(drawn(t, 24, 80, test.begun)))
			a.write([]byte(test.rest))
			b.write([]byte(test.rest))
			if got, want := dump(b), dump(a); got != want {
				t.Errorf("it shows\n%s\ninstead of\n%s", got, want)
			}
		})
	}
}

// stopped returns a screen whose goroutine has ended, so that all that is appended stays pending until it is drawn.
func stopped(rows, cols uint16) *Screen {
	s := New(rows, cols)
	s.Close()
	return s
}

// feed gives the terminal of a stopped screen all that is pending, however long that takes.
func feed(s *Screen) {
	for s.step() {
	}
}

func TestTheOldestPendingDataIsDropped(t *testing.T) {
	cut := strings.Repeat("x", maxPending)
	for name, test := range map[string]struct {
		appended []string
		want     string
	}{
		"inside a sequence": {[]string{"\x1b[?25l\x1b[3", "1m" + cut[:maxPending-20] + "\x1b[H\x1b[2Jthe end"}, "the end"},
		"before a sequence": {[]string{"old", "12345\x1b[H\x1b[2Jnew" +
			strings.Repeat("\x1b[m", 21840)}, "new"},
		"in one piece":          {[]string{"old", cut + "\x1b[H\x1b[2Jnew"}, "new"},
		"in many small pieces":  {append([]string{"old"}, strings.Split(strings.Repeat("\x1b[m.", maxPending), ".")...), ""},
		"nothing, it just fits": {[]string{"\x1b[H", cut[:maxPending-10] + "\x1b[2J\x1b[H"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, end := stopped(24, 80), uint64(0)
			for _, p := range test.appended {
				end += uint64(len(p))
				s.Append([]byte(p), end)
				if s.size > maxPending {
					t.Fatalf("%d bytes are pending", s.size)
				}
			}
			feed(s)
			_, position := s.Draw(0, 0)
			if got := text(s.terminal.grid.rows()); got != test.want || position != end {
				t.Errorf("it shows %q up to %d instead of %q up to %d", got, position, test.want, end)
			}
		})
	}
}

func TestSizesThatWaitAreBounded(t *testing.T) {
	s := stopped(24, 80)
	for i := range 10000 {
		s.Append([]byte("x"), uint64(i+1))
		s.Resize(uint16(10+i%5), uint16(20+i%7))
		if len(s.pending) > maxItems {
			t.Fatalf("%d items are pending", len(s.pending))
		}
	}
	s.Resize(7, 9)
	feed(s)
	if _, position := s.Draw(0, 0); position != 10000 || s.terminal.rows != 7 || s.terminal.cols != 9 {
		t.Errorf("the screen has %d rows and %d columns at %d", s.terminal.rows, s.terminal.cols, position)
	}
}

func TestAppendKeepsNothing(t *testing.T) {
	s := stopped(24, 80)
	p := []byte("text")
	s.Append(p, 4)
	copy(p, "XXXX")
	s.Draw(0, 0)
	if got := text(s.terminal.grid.rows()); got != "text" {
		t.Errorf("it shows %q", got)
	}
}

func TestAScreenStartsOverWhenItsEmulatorPanics(t *testing.T) {
	s := stopped(24, 80)
	s.Append([]byte("before"), 6)
	s.Draw(0, 0)
	s.terminal.grid = nil
	s.Append([]byte("panic"), 11)
	if drawing, position := s.Draw(0, 0); position != 0 || strings.Contains(string(drawing), "before") {
		t.Errorf("it draws %q and goes on at %d", drawing, position)
	}
	s.Append([]byte("after"), 16)
	if drawing, position := s.Draw(0, 0); position != 16 || !strings.Contains(string(drawing), "after") {
		t.Errorf("it draws %q and goes on at %d", drawing, position)
	}
	s.terminal.grid = nil
	if _, position := s.Draw(0, 0); position != 0 {
		t.Errorf("it goes on at %d", position)
	}
}

func TestAllAtOnce(t *testing.T) {
	s := open(t, 24, 80)
	var all sync.WaitGroup
	all.Go(func() {
		stream := noise(7, 1<<18)
		for at := 0; at < len(stream); at += 1000 {
			end := min(len(stream), at+1000)
			s.Append([]byte(stream[at:end]), uint64(end))
		}
	})
	all.Go(func() {
		for i := range 200 {
			s.Resize(uint16(i%50), uint16(i%150))
		}
	})
	for range 2 {
		all.Go(func() {
			last := uint64(0)
			for i := range 50 {
				_, position := s.Draw(uint16(i%30), uint16(i%100))
				if position < last {
					t.Errorf("the position went back from %d to %d", last, position)
				}
				last = position
			}
		})
	}
	all.Wait()
	s.Close()
	s.Close()
}

// edited returns output like that of an editor: rows with colours, scrolling, and status lines.
func edited(size int) string {
	var b strings.Builder
	n := numbers(42)
	b.WriteString("\x1b[?1049h\x1b[?1h\x1b=\x1b[1;24r")
	for b.Len() < size {
		r := n.next()
		fmt.Fprintf(&b, "\x1b[%d;1H\x1b[3%dmint\x1b[m x = \x1b[38;2;1;2;%dm世界\x1b[K\r\n\x1b[M", 1+r%20, r>>8&7, r>>16&255)
		b.WriteString("\x1b[24;1H\x1b[7mstatus\x1b[m")
	}
	return b.String()
}

// TestMemory logs what a screen takes, and bounds it.
func TestMemory(t *testing.T) {
	const n = 2
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	stream := []byte(edited(1 << 20))
	screens := make([]*Screen, n)
	before := heap()
	for i := range screens {
		screens[i] = stopped(24, 80)
	}
	fresh := (heap() - before) / n
	for _, s := range screens {
		for at := 0; at < len(stream); at += 16 << 10 {
			end := min(len(stream), at+16<<10)
			s.Append(stream[at:end], uint64(end))
			feed(s)
		}
	}
	used := (heap() - before) / n
	t.Logf("a screen of 24 rows and 80 columns takes %d bytes when it is fresh, and %d after 1 MiB of output", fresh, used)
	if fresh > 600_000 || used > 800_000 {
		t.Error("that is too much")
	}
	runtime.KeepAlive(screens)
	runtime.KeepAlive(stream)
}

// BenchmarkAppend measures how fast the emulator follows.
func BenchmarkAppend(b *testing.B) {
	lines := strings.Repeat(strings.Repeat("x", 60)+"\r\n", 512)
	for name, stream := range map[string]string{"editor": edited(32 << 10), "lines": lines} {
		b.Run(name, func(b *testing.B) {
			s := stopped(24, 80)
			b.SetBytes(int64(len(stream)))
			for b.Loop() {
				s.Append([]byte(stream), 1)
				feed(s)
			}
		})
	}
}
