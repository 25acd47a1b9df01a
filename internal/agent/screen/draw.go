package screen

import (
	"fmt"
	"slices"
)

// reset brings a terminal of any earlier state to the main screen, with the modes that a drawing takes for granted:
// an unfinished string ends, text stays in its row, and nothing is in the way of the cursor. Not all terminals know the
// soft reset.
const reset = "\x1b\\\x1b[?1049l\x1b[!p\x1b[4l\x1b[20l\x1b[?6l\x1b[?69l\x1b[r\x1b[?7l\x1b[m" +
	"\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[3g"

// drawing is bytes that show a screen on a client's terminal, of which some rows and columns may be cut.
type drawing struct {
	of            *terminal
	height, width int // of what is shown
	skip          int // rows above it
	bytes         []byte
	style         style // what the client's terminal has now,
	sets          [4]byte
	shift         int // and its charsets
}

// draw returns bytes that bring a terminal of this size to the state of this one. A size of 0 is unknown.
func (t *terminal) draw(rows, cols int) []byte {
	d := drawing{of: t, height: t.rows, width: t.cols}
	if rows > 0 {
		d.height = min(rows, t.rows)
	}
	if cols > 0 {
		d.width = min(cols, t.cols)
	}
	d.add(reset)
	if cols > 0 { // tmux joins characters at the edge only when it wraps
		d.private(7, true)
	}
	d.tabs()
	if t.alternate {
		d.screen(t.grid.main, t.saved[0].y)
		d.region()
		d.restore(&t.saved[0])
		d.add("\x1b[?1049h\x1b[?6l")
	}
	d.screen(t.grid.rows(), t.y)
	d.region()
	d.restore(&t.saved[t.screen()])
	d.add("\x1b7")
	d.modes()
	d.cursor(cols == 0 || cols == t.cols)
	d.bytes = append(d.bytes, t.parser.rest()...)
	return d.bytes
}

func (d *drawing) add(format string, args ...any) { d.bytes = fmt.Appendf(d.bytes, format, args...) }

// private adds what switches a private mode.
func (d *drawing) private(mode int, on bool) {
	final := 'l'
	if on {
		final = 'h'
	}
	d.add("\x1b[?%d%c", mode, final)
}

// tabs sets the tab stops.
func (d *drawing) tabs() {
	for x := range d.width {
		if d.of.tabs[x] {
			d.add("\x1b[%dG\x1bH", x+1)
		}
	}
}

// screen draws rows: the last ones that fit and have the cursor among them.
func (d *drawing) screen(rows [][]cell, y int) {
	d.skip = max(0, min(d.of.rows-d.height, y))
	d.pen(style{})
	d.add("\x1b[H\x1b[2J")
	for i := range d.height {
		if i+d.skip < len(rows) && len(rows[i+d.skip]) > 0 {
			d.add("\x1b[%dH", i+1)
			d.row(rows[i+d.skip])
		}
	}
}

// row draws the cells of a row that fit.
func (d *drawing) row(row []cell) {
	for x := 0; x < len(row) && x+int(row[x].width) <= d.width; x += max(1, int(row[x].width)) {
		d.pen(row[x].style)
		d.bytes = append(d.bytes, row[x].text...)
	}
}

// pen sets the style of what follows.
func (d *drawing) pen(s style) {
	if s != d.style {
		d.style = s
		d.bytes = append(d.bytes, s.sgr()...)
	}
}

// charsets sets what G0 to G3 are, and which is used.
func (d *drawing) charsets(sets [4]byte, shift int) {
	for i, set := range sets {
		if set != d.sets[i] {
			if set == 0 {
				set = 'B'
			}
			d.add("\x1b%c%c", '('+i, set)
		}
	}
	if shift != d.shift {
		d.bytes = append(d.bytes, []string{"\x0f", "\x0e", "\x1bn", "\x1bo"}[shift]...)
	}
	d.sets, d.shift = sets, shift
}

// region sets the rows that scroll, as far as they are shown.
func (d *drawing) region() {
	t := d.of
	top, bottom := max(0, t.top-d.skip), min(d.height, t.bottom-d.skip)
	if t.top == 0 && t.bottom == t.rows || top+1 >= bottom {
		d.add("\x1b[r")
		return
	}
	d.add("\x1b[%d;%dr", top+1, bottom)
}

// move sets the cursor's place, and whether its rows are counted from the top of the region.
func (d *drawing) move(c *cursor) {
	y := c.y - d.skip
	d.private(6, c.origin)
	if c.origin {
		y = c.y - max(d.of.top, d.skip)
	}
	d.add("\x1b[%d;%dH", max(0, min(y, d.height-1))+1, min(c.x, d.width-1)+1)
}

// restore makes the cursor what a saved one is.
func (d *drawing) restore(c *cursor) {
	d.move(c)
	d.pen(c.style)
	d.charsets(c.sets, c.shift)
}

// modes sets what is switched on for the terminal as a whole.
func (d *drawing) modes() {
	t := d.of
	for _, mode := range tracking {
		d.private(mode, false)
	}
	if t.mouse != 0 {
		d.private(t.mouse, true)
	}
	for _, mode := range recorded {
		d.private(mode, false)
	}
	for _, mode := range recorded {
		if t.on[mode] {
			d.private(mode, true)
		}
	}
	d.add("\x1b[>4;%dm", t.keyCodes)
	if t.keypad {
		d.add("\x1b=")
	} else {
		d.add("\x1b>")
	}
	if t.newline {
		d.add("\x1b[20h")
	}
	d.private(7, !t.noWrap)
}

// cursor sets all of the cursor. On a terminal of the same width, it can wait behind the last column.
func (d *drawing) cursor(same bool) {
	t := d.of
	d.charsets([4]byte{}, 0)
	d.move(&t.cursor)
	if t.pending && same {
		d.last()
	}
	d.pen(t.style)
	d.charsets(t.sets, t.shift)
	if t.insert {
		d.add("\x1b[4h")
	}
	d.add("\x1b[%d q", t.shape)
	d.private(25, !t.hidden)
}

// last writes the last character of the cursor's row again, so that the next one wraps.
func (d *drawing) last() {
	row := d.of.grid.row(d.of.y)
	if len(row) < d.width {
		row = append(slices.Clone(row), slices.Repeat([]cell{empty}, d.width-len(row))...)
	}
	c := row[d.width-1]
	if c.width == 0 {
		c = row[d.width-2]
		d.add("\b")
	}
	d.pen(c.style)
	d.bytes = append(d.bytes, c.text...)
}
