package screen

import "unicode/utf8"

// maxText bounds the bytes of one place: a character and those that join it.
const maxText = 32

// terminal carries out what a command writes.
type terminal struct {
	parser parser
	state
	grid *grid
}

// newTerminal returns a terminal that was just switched on.
func newTerminal(rows, cols int) *terminal {
	return &terminal{state: newState(rows, cols), grid: newGrid(rows, cols)}
}

// write carries out bytes.
func (t *terminal) write(p []byte) {
	for _, b := range p {
		t.parser.feed(b, t)
	}
}

// print shows a character at the cursor.
func (t *terminal) print(r rune) {
	if r >= 0x80 && r < 0xa0 { // a control character of eight bits
		return
	}
	r = translate(t.sets[t.shift], r)
	n := columns(r)
	if n == 0 {
		t.join(r)
		return
	}
	if n > t.cols || t.noWrap && t.x+n > t.cols {
		return
	}
	if !t.noWrap && (t.pending || t.x+n > t.cols) {
		t.x = 0
		t.index()
	}
	if t.insert {
		t.grid.insertCells(t.x, t.y, n, t.style.blank())
	}
	t.grid.set(t.x, t.y, cell{text: string(r), style: t.style, width: uint8(n)})
	t.last = r
	t.pending = t.x+n == t.cols
	t.x = min(t.x+n, t.cols-1)
}

// join adds a character that takes no column to the character before the cursor.
func (t *terminal) join(r rune) {
	x := t.x
	if !t.pending {
		x--
	}
	if x > 0 && t.grid.at(x, t.y).width == 0 {
		x--
	}
	if x < 0 {
		return
	}
	c := t.grid.at(x, t.y)
	if c.width > 0 && len(c.text)+utf8.RuneLen(r) <= maxText {
		c.text += string(r)
		t.grid.set(x, t.y, c)
	}
}

// control carries out a control character.
func (t *terminal) control(b byte) {
	switch b {
	case '\b':
		t.across(t.x - 1)
	case '\t':
		t.tab(1)
	case '\n', '\v', '\f':
		t.index()
		if t.newline {
			t.across(0)
		}
	case '\r':
		t.across(0)
	case 0x0e:
		t.shift = 1
	case 0x0f:
		t.shift = 0
	}
}

// index moves the cursor down, and scrolls at the bottom of the region.
func (t *terminal) index() {
	if t.y == t.bottom-1 {
		t.grid.deleteLines(t.top, t.bottom, 1, t.style.blank())
		t.pending = false
		return
	}
	t.down(1)
}

// reverseIndex moves the cursor up, and scrolls at the top of the region.
func (t *terminal) reverseIndex() {
	if t.y == t.top {
		t.grid.insertLines(t.top, t.bottom, 1, t.style.blank())
		t.pending = false
		return
	}
	t.up(1)
}

// escape carries out a short escape sequence.
func (t *terminal) escape(intermediate, final byte) {
	if intermediate >= '(' && intermediate <= '+' {
		if final == 'B' {
			final = 0
		}
		t.sets[intermediate-'('] = final
		return
	}
	if intermediate != 0 {
		return
	}
	switch final {
	case '7':
		t.saved[t.screen()] = t.cursor
	case '8':
		t.restore()
	case '=', '>':
		t.keypad = final == '='
	case 'D':
		t.index()
	case 'E':
		t.across(0)
		t.index()
	case 'M':
		t.reverseIndex()
	case 'H':
		t.tabs[t.x] = true
	case 'n', 'o':
		t.shift = int(final-'n') + 2
	case 'c':
		t.reset()
	}
}

// restore does what DECRC does.
func (t *terminal) restore() {
	t.cursor = t.saved[t.screen()]
	t.limit(t.rows, t.cols)
}

// reset switches the terminal off and on.
func (t *terminal) reset() {
	t.showAlternate(false)
	t.state = newState(t.rows, t.cols)
	t.erase(0, t.rows)
}

// erase makes rows blank, from one to before another.
func (t *terminal) erase(from, to int) {
	for y := from; y < to; y++ {
		t.grid.erase(0, t.cols, y, t.style.blank())
	}
}

// showAlternate shows the alternate screen, or the main one again. The cursor stays where it is.
func (t *terminal) showAlternate(on bool) {
	if on != t.alternate {
		t.alternate = on
		t.grid.showAlternate(on)
	}
}

// switchScreen carries out the private modes for the alternate screen and for the saved cursor.
func (t *terminal) switchScreen(mode int, on bool) {
	if on && mode >= 1048 {
		t.saved[t.screen()] = t.cursor
	}
	if mode != 1048 {
		t.showAlternate(on)
	}
	if on && mode == 1049 {
		t.erase(0, t.rows)
	}
	if !on && mode >= 1048 {
		t.restore()
	}
}

// resize changes the size. The row of the cursor stays on the screen.
func (t *terminal) resize(rows, cols int) {
	if over := t.y - (rows - 1); over > 0 {
		t.grid.deleteLines(0, t.rows, over, style{})
		t.y -= over
	}
	t.grid.resize(rows, cols)
	t.state.resize(rows, cols)
}
