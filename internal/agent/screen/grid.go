package screen

import "slices"

// cell is one place of the screen. A wide character has its text in the first of two places. The second has the
// width 0.
type cell struct {
	text  string
	style style
	width uint8
}

// empty is a place that nothing was written to.
var empty = cell{text: " ", width: 1}

// grid is the cells of both screens.
type grid struct {
	shown [][]cell
	main  [][]cell // the rows of the main screen while the alternate one is shown
	cols  int
}

// newGrid returns an empty screen.
func newGrid(rows, cols int) *grid {
	g := &grid{cols: cols}
	g.shown = g.blankRows(rows, style{})
	return g
}

// blankRows returns n rows that are erased.
func (g *grid) blankRows(n int, blank style) [][]cell {
	rows := make([][]cell, n)
	for i := range rows {
		rows[i] = blankCells(g.cols, blank)
	}
	return rows
}

func blankCells(n int, blank style) []cell {
	return slices.Repeat([]cell{{text: " ", style: blank, width: 1}}, n)
}

// at returns the cell at a place of the screen that is shown.
func (g *grid) at(x, y int) cell { return g.shown[y][x] }

// set puts a cell at a place. What was left of a wide character there becomes blank.
func (g *grid) set(x, y int, c cell) {
	row := g.shown[y]
	cut(row, x)
	cut(row, x+int(c.width))
	row[x] = c
	if c.width == 2 {
		row[x+1] = cell{style: c.style}
	}
}

// cut makes a wide character blank if x is its second place.
func cut(row []cell, x int) {
	if x < len(row) && x > 0 && row[x].width == 0 {
		row[x-1] = cell{text: " ", style: row[x-1].style, width: 1}
		row[x] = cell{text: " ", style: row[x].style, width: 1}
	}
}

// erase makes places of a row blank, from x to end.
func (g *grid) erase(x, end, y int, blank style) {
	row := g.shown[y]
	cut(row, x)
	cut(row, end)
	for ; x < end; x++ {
		row[x] = cell{text: " ", style: blank, width: 1}
	}
}

// rows returns the rows of the screen that is shown.
func (g *grid) rows() [][]cell {
	rows := make([][]cell, len(g.shown))
	for y := range rows {
		rows[y] = g.row(y)
	}
	return rows
}

// row returns a row of the screen that is shown, without empty places at its end.
func (g *grid) row(y int) []cell { return trimmed(g.shown[y]) }

func trimmed(row []cell) []cell {
	for len(row) > 0 && row[len(row)-1] == empty {
		row = row[:len(row)-1]
	}
	return row
}

// insertCells moves the places of a row from x on to the right.
func (g *grid) insertCells(x, y, n int, blank style) {
	row := g.shown[y]
	cut(row, x)
	cut(row, len(row)-n)
	copy(row[x+n:], row[x:])
	copy(row[x:x+n], blankCells(n, blank))
}

// deleteCells moves the places of a row behind x to the left.
func (g *grid) deleteCells(x, y, n int, blank style) {
	row := g.shown[y]
	cut(row, x)
	cut(row, x+n)
	copy(row[x:], row[x+n:])
	copy(row[len(row)-n:], blankCells(n, blank))
}

// insertLines moves the rows from y to bottom down.
func (g *grid) insertLines(y, bottom, n int, blank style) {
	g.rotate(y, bottom, bottom-y-n, y, n, blank)
}

// deleteLines moves the rows below y up to bottom up.
func (g *grid) deleteLines(y, bottom, n int, blank style) { g.rotate(y, bottom, n, bottom-n, n, blank) }

// rotate moves rows, of which by go to the other end, and makes n rows from fresh on blank.
func (g *grid) rotate(y, bottom, by, fresh, n int, blank style) {
	region := g.shown[y:bottom]
	slices.Reverse(region[:by])
	slices.Reverse(region[by:])
	slices.Reverse(region)
	for i := range n {
		g.erase(0, g.cols, fresh+i, blank)
	}
}

// showAlternate shows the alternate screen, which is empty, or the main one again.
func (g *grid) showAlternate(on bool) {
	if on {
		g.main, g.shown = g.shown, g.blankRows(len(g.shown), style{})
		return
	}
	g.main, g.shown = nil, g.main
}

// resize changes the size of both screens. Rows are cut at the bottom.
func (g *grid) resize(rows, cols int) {
	g.cols = cols
	g.shown = g.resized(g.shown, rows)
	if g.main != nil {
		g.main = g.resized(g.main, rows)
	}
}

func (g *grid) resized(old [][]cell, rows int) [][]cell {
	now := g.blankRows(rows, style{})
	for y := range min(rows, len(old)) {
		n := copy(now[y], old[y])
		if n > 0 && now[y][n-1].width == 2 {
			now[y][n-1] = empty
		}
	}
	return now
}
