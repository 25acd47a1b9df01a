package screen

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a screen that is closed at the end of the test.
func open(t testing.TB, rows, cols uint16) *Screen {
	t.Helper()
	s := New(rows, cols)
	t.Cleanup(s.Close)
	return s
}

// drawn returns what a screen draws when it has got a stream.
func drawn(t testing.TB, rows, cols uint16, stream string) string {
	t.Helper()
	s := stopped(rows, cols)
	s.Append([]byte(stream), uint64(len(stream)))
	feed(s)
	drawing, position := s.Draw(0, 0)
	if position != uint64(len(stream)) {
		t.Errorf("the stream goes on at %d instead of %d", position, len(stream))
	}
	return string(drawing)
}

// text returns the rows of a terminal, without spaces at their ends.
func text(rows [][]cell) string {
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for _, c := range row {
			line += c.text
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// dump returns all of a terminal that a client can see or feel later.
func dump(term *terminal) string {
	var b strings.Builder
	show := func(name string, rows [][]cell) {
		fmt.Fprintln(&b, name)
		for y, row := range rows {
			if len(row) > 0 {
				fmt.Fprintf(&b, "%d %q", y, text([][]cell{row}))
				for _, c := range row {
					fmt.Fprint(&b, c.style.sgr()[2:], c.width)
				}
				fmt.Fprintln(&b)
			}
		}
	}
	if term.alternate {
		show("main", term.grid.main)
	}
	show("shown", term.grid.rows())
	saved := term.saved
	saved[0].pending, saved[1].pending = false, false
	if !term.alternate {
		saved[1] = cursor{}
	}
	fmt.Fprintf(&b, "%+v\n%+v\nsaved %+v\nregion %d %d\ntabs %v\nalternate %v\nbegun %q\n",
		term.modes, term.cursor, saved, term.top, term.bottom, term.tabs, term.alternate, term.parser.begun)
	return b.String()
}
