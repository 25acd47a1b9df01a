package render

import (
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"banger"
	"banger/internal/text"
)

// tickEvery is how often a live line shows that time goes on.
const tickEvery = 200 * time.Millisecond

// ticker calls a function now and then until it is stopped.
type ticker struct{ stop, stopped chan struct{} }

func tick(f func(now time.Time)) *ticker {
	t := &ticker{make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(t.stopped)
		tick := time.NewTicker(tickEvery)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				f(now)
			case <-t.stop:
				return
			}
		}
	}()
	return t
}

// end returns when f runs no more. A nil ticker has ended.
func (t *ticker) end() {
	if t != nil {
		close(t.stop)
		<-t.stopped
	}
}

// Progress shows the events of one operation: a live line per stage on a terminal, in which a clock ticks, and plain
// lines elsewhere. Close must be called.
type Progress struct {
	w    io.Writer
	live bool

	mu    sync.Mutex
	stage stage
	last  banger.Event // of the stage
	open  bool         // a live line is on the screen
	clock *ticker
}

// NewProgress returns a Progress that writes to w, or to nothing if quiet is true.
func NewProgress(w io.Writer, quiet bool) *Progress {
	p := &Progress{w: w, live: IsTerminal(w)}
	if quiet {
		p.w, p.live = io.Discard, false
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
	p.mu.Lock()
	defer p.mu.Unlock()
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
	p.last, p.open = e, true
	p.draw(now)
	if e.Done {
		p.finish()
	}
	if p.clock == nil {
		p.clock = tick(func(now time.Time) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.open {
				p.draw(now)
			}
		})
	}
}

// draw writes the live line, over what was there.
func (p *Progress) draw(now time.Time) {
	_, columns := TerminalSize(p.w)
	fmt.Fprintf(p.w, "\r\x1b[K%s", p.stage.line(p.last, now, int(columns)))
}

func (p *Progress) finish() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

// Close stops the clock and ends the last line.
func (p *Progress) Close() {
	p.clock.end()
	p.clock = nil
	p.finish()
}

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

// minText is how much of a stage's text a narrow terminal shows.
const minText = 10

// line returns the live line for an event of the stage, as wide as a terminal with this number of columns takes without
// breaking it. Without a terminal that number is 0.
func (s *stage) line(e banger.Event, now time.Time, columns int) string {
	if e.Text != "" {
		s.text = e.Text
	}
	amount := ""
	switch {
	case e.Of > 0:
		amount = fmt.Sprintf("  %d of %d", e.Count, e.Of)
	case e.Total > 0:
		amount = fmt.Sprintf("  %s / %s", banger.FormatSize(e.Bytes), banger.FormatSize(e.Total))
	case e.Bytes > 0:
		amount = "  " + banger.FormatSize(e.Bytes)
	}
	name := fmt.Sprintf("%-7s ", text.Line(s.name))
	amount += fmt.Sprintf("  %.1f s", now.Sub(s.since).Seconds())
	if columns == 0 {
		return name + text.Limit(s.text, 60) + amount
	}
	room := columns - 1 - utf8.RuneCountInString(name) - len(amount)
	return text.Limit(name+text.Limit(s.text, max(room, minText))+amount, columns-1)
}

// Group shows the events of several operations that run at the same time. On a terminal each operation has a line of
// its own, which shows its present stage. Elsewhere, and on a terminal with too few lines, each event is a plain line
// that begins with the operation's name. Close must be called.
type Group struct {
	w       io.Writer
	names   []string
	columns int // 0: plain lines

	mu    sync.Mutex
	lines []string
	drawn bool
	live  map[int]func(now time.Time) // they renew the lines of operations that go on
	clock *ticker
}

// NewGroup returns a Group for the operations with these names. It writes to w, or to nothing if quiet is true.
func NewGroup(w io.Writer, quiet bool, names []string) *Group {
	g := &Group{w: w, names: names, lines: make([]string, len(names)),
		live: map[int]func(time.Time){}}
	if rows, columns := TerminalSize(w); len(names) < int(rows) {
		g.columns = int(columns)
	}
	if quiet {
		g.w, g.columns = io.Discard, 0
	}
	if g.columns > 0 {
		g.clock = tick(g.renew)
	}
	return g
}

// Close stops the clock.
func (g *Group) Close() { g.clock.end() }

// renew draws all lines again.
func (g *Group) renew(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, renew := range g.live {
		renew(now)
	}
	if len(g.live) > 0 {
		g.draw()
	}
}

// Emit returns the function that shows the events of operation i.
func (g *Group) Emit(i int) banger.Emit {
	var present stage
	var last banger.Event
	line := func(now time.Time) { // a line that the terminal breaks would take two rows
		room := g.columns - utf8.RuneCountInString(g.names[i]) - 2
		g.lines[i] = text.Limit(g.names[i]+"  "+present.line(last, now, max(room, 1)), g.columns-1)
	}
	return func(e banger.Event) {
		if !shown(e) {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		present.enter(e, now)
		if g.columns > 0 {
			last = e
			line(now)
			if g.live[i] = line; e.Done {
				delete(g.live, i)
			}
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
