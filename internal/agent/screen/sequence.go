package screen

// sequence carries out a control sequence.
func (t *terminal) sequence(s *sequence) {
	switch {
	case s.prefix == 0 && s.intermediate == 0:
		if !t.move(s) && !t.change(s) {
			t.other(s)
		}
	case s.prefix == '?' && s.intermediate == 0 && (s.final == 'h' || s.final == 'l'):
		for _, p := range s.params {
			t.private(p.value, s.final == 'h')
		}
	case s.prefix == '>' && s.intermediate == 0 && s.final == 'm' && s.number(0, 0) == 4:
		t.keyCodes = min(s.number(1, 0), 3)
	case s.prefix == 0 && s.intermediate == '!' && s.final == 'p':
		t.softReset()
	case s.prefix == 0 && s.intermediate == ' ' && s.final == 'q':
		if shape := s.number(0, 0); shape <= 6 {
			t.shape = shape
		}
	}
}

// private switches a private mode.
func (t *terminal) private(mode int, on bool) {
	switch mode {
	case 47, 1047, 1048, 1049:
		t.switchScreen(mode, on)
	default:
		t.setPrivate(mode, on)
	}
}

// move carries out a sequence that moves the cursor. It returns false if the sequence is another.
func (t *terminal) move(s *sequence) bool {
	n := s.count(0)
	switch s.final {
	case 'A':
		t.up(n)
	case 'B', 'e':
		t.down(n)
	case 'C', 'a':
		t.across(t.x + n)
	case 'D':
		t.across(t.x - n)
	case 'E':
		t.down(n)
		t.across(0)
	case 'F':
		t.up(n)
		t.across(0)
	case 'G', '`':
		t.across(n - 1)
	case 'H', 'f':
		t.place(n-1, s.count(1)-1)
	case 'd':
		t.place(n-1, t.x)
	case 'I':
		t.tab(n)
	case 'Z':
		t.tab(-n)
	default:
		return false
	}
	return true
}

// change carries out a sequence that changes cells. It returns false if the sequence is another. A cursor that waits
// behind the last column has no cell, so there is nothing to insert, delete or erase from it on.
func (t *terminal) change(s *sequence) bool {
	blank := t.style.blank()
	n, behind := s.count(0), t.cols-t.x
	if t.pending {
		behind = 0
	}
	switch s.final {
	case '@':
		t.grid.insertCells(t.x, t.y, min(n, behind), blank)
	case 'P':
		t.grid.deleteCells(t.x, t.y, min(n, behind), blank)
	case 'X':
		t.grid.erase(t.x, t.x+min(n, behind), t.y, blank)
	case 'J':
		t.eraseScreen(s.number(0, 0))
	case 'K':
		t.eraseRow(s.number(0, 0))
	case 'L', 'M':
		t.changeLines(s.final, n)
	case 'S':
		t.grid.deleteLines(t.top, t.bottom, min(n, t.bottom-t.top), blank)
	case 'T':
		t.grid.insertLines(t.top, t.bottom, min(n, t.bottom-t.top), blank)
	case 'b':
		for range min(n, t.cols) {
			if t.last != 0 {
				t.print(t.last)
			}
		}
	default:
		return false
	}
	return true
}

// changeLines inserts or deletes lines at the cursor, if it is in the region.
func (t *terminal) changeLines(final byte, n int) {
	if t.y < t.top || t.y >= t.bottom {
		return
	}
	if n = min(n, t.bottom-t.y); final == 'L' {
		t.grid.insertLines(t.y, t.bottom, n, t.style.blank())
	} else {
		t.grid.deleteLines(t.y, t.bottom, n, t.style.blank())
	}
	t.across(0)
}

// eraseScreen makes the screen blank: behind the cursor, before it, or all of it.
func (t *terminal) eraseScreen(which int) {
	switch which {
	case 0:
		t.eraseRow(0)
		t.erase(t.y+1, t.rows)
	case 1:
		t.erase(0, t.y)
		t.eraseRow(1)
	case 2:
		t.erase(0, t.rows)
	}
}

// eraseRow makes the row of the cursor blank: behind the cursor, before it, or all of it.
func (t *terminal) eraseRow(which int) {
	blank := t.style.blank()
	switch which {
	case 0:
		if !t.pending {
			t.grid.erase(t.x, t.cols, t.y, blank)
		}
	case 1:
		t.grid.erase(0, t.x+1, t.y, blank)
	case 2:
		t.grid.erase(0, t.cols, t.y, blank)
	}
}

// other carries out a sequence that changes the state alone.
func (t *terminal) other(s *sequence) {
	switch s.final {
	case 'm':
		t.style.apply(s.params)
	case 'r':
		t.setRegion(s.count(0)-1, s.bottom(t.rows))
	case 'h', 'l':
		for _, p := range s.params {
			t.setMode(p.value, s.final == 'h')
		}
	case 's':
		t.saved[t.screen()] = t.cursor
	case 'u':
		t.restore()
	case 'g':
		switch s.number(0, 0) {
		case 0:
			t.tabs[t.x] = false
		case 3:
			clear(t.tabs)
		}
	}
}

// bottom returns the last row of DECSTBM, which is the last one of the screen if it is missing.
func (s *sequence) bottom(rows int) int {
	if n := s.number(1, 0); n > 0 {
		return n
	}
	return rows
}
