package render

import (
	"fmt"
	"io"
	"sync"
	"time"

	"banger"
	"banger/internal/text"
)

// Progress shows the events of one operation: a live line per stage on a terminal, and plain lines elsewhere.
type Progress struct {
	w     io.Writer
	live  bool
	stage stage
	open  bool // a live line is on the screen
}

// NewProgress returns a Progress that writes to w, or to nothing if quiet is true.
func NewProgress(w io.Writer, quiet bool) *Progress {
	p := &Progress{w: w, live: IsTerminal(w)}
	if quiet {
		p.w = io.Discard
	}
	return p
}

// Live reports whether events replace each other on a terminal. Then every event is worth showing.
func (p *Progress) Live() bool { return p.live }

// Emit shows an event.
func (p *Progress) Emit(e banger.Event) {
	if !shown(e) {
		return
	}
	now := time.Now()
	if p.stage.enter(e, now) {
		p.finish()
	}
	if !p.live {
		if e.Text != "" && e.Text != p.stage.text {
			fmt.Fprintf(p.w, "%s: %s\n", text.Line(e.Stage), text.Limit(e.Text, text.MaxError))
		}
		if e.Layer == "" {
			p.stage.text = e.Text
		}
		return
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", p.stage.line(e, now))
	p.open = true
	if e.Done {
		p.finish()
	}
}

func (p *Progress) finish() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

// Close ends the last line.
func (p *Progress) Close() { p.finish() }

// shown reports whether an event is for a person. The events of single layers are not: the line for all layers says
// enough.
func shown(e banger.Event) bool { return e.Stage != "" && (e.Layer == "" || e.Done) }

// stage is the stage that an operation is in.
type stage struct {
	name, text string
	since      time.Time
}

// enter moves to the stage of e and reports whether that is another one.
func (s *stage) enter(e banger.Event, now time.Time) bool {
	if e.Stage == s.name {
		return false
	}
	*s = stage{name: e.Stage, since: now}
	return true
}

// line returns the live line for an event of the stage.
func (s *stage) line(e banger.Event, now time.Time) string {
	if e.Text != "" {
		s.text = e.Text
	}
	line := fmt.Sprintf("%-7s %s", text.Line(s.name), text.Limit(s.text, 60))
	switch {
	case e.Total > 0:
		line += fmt.Sprintf("  %s / %s", banger.FormatSize(e.Bytes), banger.FormatSize(e.Total))
	case e.Bytes > 0:
		line += "  " + banger.FormatSize(e.Bytes)
	}
	return fmt.Sprintf("%s  %.1f s", line, now.Sub(s.since).Seconds())
}

// Group shows the events of several operations that run at the same time. On a terminal each operation has a line of
// its own, which shows its present stage. Elsewhere, and on a terminal with too few lines, each event is a plain line
// that begins with the operation's name.
type Group struct {
	w       io.Writer
	names   []string
	columns int // 0: plain lines

	mu    sync.Mutex
	lines []string
	drawn bool
}

// NewGroup returns a Group for the operations with these names. It writes to w, or to nothing if quiet is true.
func NewGroup(w io.Writer, quiet bool, names []string) *Group {
	g := &Group{w: w, names: names, lines: make([]string, len(names))}
	if rows, columns := TerminalSize(w); len(names) < int(rows) {
		g.columns = int(columns)
	}
	if quiet {
		g.w = io.Discard
	}
	return g
}

// Emit returns the function that shows the events of operation i.
func (g *Group) Emit(i int) banger.Emit {
	var present stage
	return func(e banger.Event) {
		if !shown(e) {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		present.enter(e, now)
		if g.columns > 0 {
			// A line that the terminal breaks would take two rows.
			g.lines[i] = text.Limit(g.names[i]+"  "+present.line(e, now), g.columns-1)
			g.draw()
			return
		}
		if e.Text != "" && e.Text != present.text {
			line := text.Limit(e.Text, text.MaxError)
			fmt.Fprintf(g.w, "%s: %s: %s\n", text.Line(g.names[i]), text.Line(e.Stage), line)
		}
		present.text = e.Text
	}
}

// draw writes all lines, over those that it wrote before.
func (g *Group) draw() {
	screen := ""
	if g.drawn {
		screen = fmt.Sprintf("\x1b[%dA", len(g.lines)) // console_codes(4): up
	}
	for _, line := range g.lines {
		screen += "\r\x1b[K" + line + "\n"
	}
	io.WriteString(g.w, screen)
	g.drawn = true
}
