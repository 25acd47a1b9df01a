package screen

import "slices"

// recorded are the private modes that change nothing here but what a client's terminal sends or shows. In drawings they
// come in this order.
var recorded = []int{1, 5, 1004, 1005, 1006, 1015, 1016, 2004}

// tracking are the private modes that say which movements of the mouse are sent. At most one of them is on.
var tracking = []int{9, 1000, 1002, 1003}

// modes is what a command has switched on and off for the terminal as a whole.
type modes struct {
	on       map[int]bool // those of recorded that are on
	mouse    int          // that of tracking which is on, or 0
	keypad   bool         // sends its application codes
	insert   bool
	newline  bool // a line feed also returns the carriage
	noWrap   bool
	hidden   bool // the cursor is
	shape    int  // of the cursor, as in DECSCUSR
	keyCodes int  // xterm's modifyOtherKeys
}

// cursor is where the next character goes and how it looks: what DECSC saves.
type cursor struct {
	x, y    int
	style   style
	origin  bool    // rows are counted from the top of the region
	sets    [4]byte // the charsets G0 to G3; 0 is ASCII
	shift   int     // which of them is used
	pending bool    // the last column was written, and the next character may wrap
}

// state is what decides what the next byte does, beside the cells.
type state struct {
	rows, cols int
	modes
	cursor
	saved       [2]cursor // of the main and the alternate screen
	alternate   bool      // is shown
	top, bottom int       // the rows that scroll: from top to before bottom
	tabs        []bool
	last        rune // the last character, which REP repeats
}

// newState returns the state of a terminal that was just switched on.
func newState(rows, cols int) state {
	s := state{rows: rows, cols: cols, bottom: rows}
	s.on = map[int]bool{}
	s.tabs = stops(cols)
	return s
}

// stops returns the tab stops of a terminal that was just switched on.
func stops(cols int) []bool {
	tabs := make([]bool, cols)
	for x := range tabs {
		tabs[x] = x%8 == 0
	}
	return tabs
}

// screen returns the number of the screen that is shown.
func (s *state) screen() int {
	if s.alternate {
		return 1
	}
	return 0
}

// limit keeps the cursor on the screen.
func (c *cursor) limit(rows, cols int) {
	c.x, c.y = min(max(c.x, 0), cols-1), min(max(c.y, 0), rows-1)
	c.pending = c.pending && c.x == cols-1
}

// place moves the cursor to a row and a column as CUP counts them, but from 0.
func (s *state) place(row, col int) {
	s.y = min(row, s.rows-1)
	if s.origin {
		s.y = min(s.top+row, s.bottom-1)
	}
	s.x, s.pending = min(col, s.cols-1), false
}

// up moves the cursor up. It stops at the top of the region if it was below that.
func (s *state) up(n int) {
	stop := 0
	if s.y >= s.top {
		stop = s.top
	}
	s.y, s.pending = max(stop, s.y-n), false
}

// down moves the cursor down. It stops at the bottom of the region if it was above that.
func (s *state) down(n int) {
	stop := s.rows - 1
	if s.y < s.bottom {
		stop = s.bottom - 1
	}
	s.y, s.pending = min(stop, s.y+n), false
}

// across moves the cursor to a column.
func (s *state) across(x int) {
	s.x, s.pending = min(max(x, 0), s.cols-1), false
}

// tab moves the cursor n stops on, or back if n is negative.
func (s *state) tab(n int) {
	step := 1
	if n < 0 {
		step, n = -1, -n
	}
	x := s.x
	for range min(n, s.cols) {
		for x += step; x > 0 && x < s.cols-1 && !s.tabs[x]; x += step {
		}
	}
	s.across(x)
}

// setRegion sets the rows that scroll, if they are at least two.
func (s *state) setRegion(top, bottom int) {
	if bottom = min(bottom, s.rows); top+1 < bottom {
		s.top, s.bottom = top, bottom
		s.place(0, 0)
	}
}

// setMode switches an ANSI mode.
func (s *state) setMode(mode int, on bool) {
	switch mode {
	case 4:
		s.insert = on
	case 20:
		s.newline = on
	}
}

// setPrivate switches a private mode that concerns no cells.
func (s *state) setPrivate(mode int, on bool) {
	switch {
	case mode == 6:
		s.origin = on
		s.place(0, 0)
	case mode == 7:
		s.noWrap = !on
	case mode == 25:
		s.hidden = !on
	case mode == 66:
		s.keypad = on
	case slices.Contains(tracking, mode):
		s.mouse = 0
		if on {
			s.mouse = mode
		}
	case slices.Contains(recorded, mode) && on:
		s.on[mode] = true
	default:
		delete(s.on, mode)
	}
}

// softReset does what DECSTR does. The cursor stays.
func (s *state) softReset() {
	s.insert, s.noWrap, s.hidden, s.keypad = false, false, false, false
	delete(s.on, 1)
	s.top, s.bottom = 0, s.rows
	s.cursor = cursor{x: s.x, y: s.y}
	s.saved[s.screen()] = cursor{}
}

// resize changes the size. The region becomes the whole screen, as terminals do.
func (s *state) resize(rows, cols int) {
	tabs := stops(cols)
	copy(tabs, s.tabs)
	s.rows, s.cols, s.tabs, s.top, s.bottom = rows, cols, tabs, 0, rows
	s.limit(rows, cols)
	for i := range s.saved {
		s.saved[i].limit(rows, cols)
	}
}
