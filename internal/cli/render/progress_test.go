package render

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"banger"
	"banger/internal/text"
)

// evil is text that must not reach a terminal unchanged.
const evil = "a\x1b]0;x\a\x1b[2J\u009b31m\u202e\u2066\u200b\ufeff\u2028\U000e0041\x7f\r\x00z"

// TestProgressIsPrintable shows an event on a terminal.
func TestProgressIsPrintable(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{w: &out, live: true}
	p.Emit(banger.Event{Stage: evil, Text: strings.Repeat(evil, 100)})
	p.Close()
	line := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\r\x1b[K"), "\n")
	if strings.ContainsFunc(line, func(r rune) bool { return !text.Printable(r) }) || len(line) > 400 {
		t.Errorf("it is %q", line)
	}
}

// events are those of a small pull.
var events = []banger.Event{
	{Stage: "pull", Text: "fetching", Total: 2 << 20},
	{Stage: "pull", Layer: "sha256:1", Bytes: 1 << 20},
	{Stage: "pull", Text: "fetching", Bytes: 1 << 20, Total: 2 << 20},
	{ID: "0123"},
	{Stage: "pull", Bytes: 2 << 20, Done: true},
	{Stage: "boot", Text: "box is running"},
}

// TestProgressOnATerminal checks that an event takes the place of the one before, and that a stage keeps its last line.
func TestProgressOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &Progress{w: &out, live: true}
		for _, e := range events {
			p.Emit(e)
			time.Sleep(30 * time.Millisecond) // on the test's own clock
		}
		p.Close()
		const want = "\r\x1b[Kpull    fetching  0 B / 2 MiB  0.0 s" +
			"\r\x1b[Kpull    fetching  1 MiB / 2 MiB  0.1 s" +
			"\r\x1b[Kpull    fetching  2 MiB  0.1 s\n" +
			"\r\x1b[Kboot    box is running  0.0 s\n"
		if got := out.String(); got != want {
			t.Errorf("it shows %q, not %q", got, want)
		}
	})
}

// TestTheClockTicks shows an operation from which no event comes, and ends when Close has stopped the clock.
func TestTheClockTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, lines bytes.Buffer
		p := &Progress{w: &out, live: true}
		p.Emit(banger.Event{Stage: "pull", Text: "fetching"})
		g := &Group{w: &lines, names: []string{"a", "b"}, columns: 40, lines: make([]string, 2),
			live: map[int]func(time.Time){}}
		g.clock = tick(g.renew)
		g.Emit(0)(banger.Event{Stage: "boot", Text: "booting a"})
		time.Sleep(tickEvery + tickEvery/2) // on the test's own clock
		g.Close()
		p.Close()
		const want = "\r\x1b[Kpull    fetching  0.0 s\r\x1b[Kpull    fetching  0.2 s\n"
		if got := out.String(); got != want {
			t.Errorf("it shows %q, not %q", got, want)
		}
		if got := lines.String(); !strings.HasSuffix(got, "\x1b[2A\r\x1b[Ka  boot    booting a  0.2 s\n\r\x1b[K\n") {
			t.Errorf("the group shows %q", got)
		}
	})
}

// TestTheWholeWidth shows how much of a text fits on terminals.
func TestTheWholeWidth(t *testing.T) {
	now := time.Now()
	e := banger.Event{Stage: "pull", Text: strings.Repeat("x", 100), Bytes: 1 << 20, Total: 2 << 20}
	for columns, want := range map[int]string{
		0:  "pull    " + strings.Repeat("x", 59) + "…  1 MiB / 2 MiB  0.0 s",
		80: "pull    " + strings.Repeat("x", 48) + "…  1 MiB / 2 MiB  0.0 s",
		30: "pull    xxxxxxxxx…  1 MiB / …",
	} {
		s := stage{name: "pull", since: now}
		if got := s.line(e, now, columns); got != want {
			t.Errorf("%d columns show %q, not %q", columns, got, want)
		}
	}
}

// TestProgressElsewhere checks that each text is written once, and nothing with -q.
func TestProgressElsewhere(t *testing.T) {
	for quiet, want := range map[bool]string{false: "pull: fetching\nboot: box is running\n", true: ""} {
		var out bytes.Buffer
		p := NewProgress(&out, quiet)
		for _, e := range events {
			p.Emit(e)
		}
		p.Close()
		if got := out.String(); got != want || p.Live() {
			t.Errorf("quiet %t: it shows %q, not %q", quiet, got, want)
		}
	}
}

// TestSeveralOperationsElsewhere checks that a plain line says which operation it is about.
func TestSeveralOperationsElsewhere(t *testing.T) {
	const plain = "a: pull: fetching\nb: pull: fetching\nb: boot: box is running\n"
	for quiet, want := range map[bool]string{false: plain, true: ""} {
		var out bytes.Buffer
		g := NewGroup(&out, quiet, []string{"a", "b"})
		a, b := g.Emit(0), g.Emit(1)
		a(events[0])
		b(events[0])
		b(events[1])
		b(events[2])
		b(events[5])
		if got := out.String(); got != want {
			t.Errorf("quiet %t: it shows %q, not %q", quiet, got, want)
		}
	}
}

// TestSeveralOperationsOnATerminal checks the lines, which must not be broken by the terminal nor by a name.
func TestSeveralOperationsOnATerminal(t *testing.T) {
	var out bytes.Buffer
	g := &Group{w: &out, names: []string{"a", evil}, columns: 30, lines: make([]string, 2),
		live: map[int]func(time.Time){}}
	g.Emit(1)(banger.Event{Stage: "boot", Text: strings.Repeat("long ", 20)})
	g.Emit(0)(banger.Event{Stage: "boot", Text: "here"})
	frames := strings.Split(out.String(), "\x1b[2A")
	if len(frames) != 2 {
		t.Fatalf("it shows %q", frames)
	}
	for i, frame := range frames {
		lines := strings.Split(frame, "\n")
		if len(lines) != 3 || lines[2] != "" {
			t.Errorf("frame %d is %q", i, frame)
		}
		for _, line := range lines[:2] {
			line, ok := strings.CutPrefix(line, "\r\x1b[K")
			broken := strings.ContainsFunc(line, func(r rune) bool { return !text.Printable(r) })
			if !ok || broken || utf8.RuneCountInString(line) > 29 {
				t.Errorf("frame %d has the line %q", i, line)
			}
		}
	}
}

func TestAge(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 s ago":     0,
		"59 s ago":    59 * time.Second,
		"1 min ago":   time.Minute,
		"1 h ago":     time.Hour,
		"47 h ago":    47*time.Hour + time.Minute,
		"2 days ago":  48 * time.Hour,
		"30 days ago": 30*24*time.Hour + time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			if got := Age(time.Now().Add(-d)); got != want {
				t.Errorf("%s is %q", d, got)
			}
		})
	}
}

// TestThingsAreCounted shows a step that says how many things it has done.
func TestThingsAreCounted(t *testing.T) {
	s := stage{name: "pull", since: time.Now()}
	e := banger.Event{Stage: "pull", Text: "setting up", Count: 3, Of: 60}
	if got := s.line(e, s.since, 80); got != "pull    setting up  3 of 60  0.0 s" {
		t.Errorf("it is %q", got)
	}
}
