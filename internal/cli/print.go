package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"banger"
	"banger/internal/text"
)

func (a *app) printJSON(v any) error {
	return text.WriteJSON(a.stdout, v, "  ")
}

func checkFormat(format string) error {
	if format != "table" && format != "json" {
		return &exitError{exitUsage, fmt.Errorf("--format is %q, but must be table or json", format)}
	}
	return nil
}

// table is an aligned list on stdout.
type table struct{ w *tabwriter.Writer }

func (a *app) table(head ...string) table {
	t := table{tabwriter.NewWriter(a.stdout, 0, 8, 3, ' ', 0)}
	t.row(head...)
	return t
}

func (t table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = text.Line(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// maxMessage is the maximum number of characters of a printed error, which may contain our text and text from
// elsewhere.
const maxMessage = 2 * text.MaxError

// complain prints an error.
func (a *app) complain(err error) {
	fmt.Fprintln(a.stderr, "banger:", text.Limit(err.Error(), maxMessage))
}

// say prints a line on stdout.
func (a *app) say(line string) { fmt.Fprintln(a.stdout, text.Line(line)) }

// copyText copies output of a guest to stdout. On a terminal it makes the text printable, because a guest must not
// control the user's terminal. Elsewhere it copies the text unchanged.
func (a *app) copyText(r io.Reader) error {
	if !isTerminal(a.stdout) {
		_, err := io.Copy(a.stdout, r)
		return err
	}
	w := text.NewWriter(a.stdout)
	_, err := io.Copy(w, r)
	return errors.Join(err, w.Flush())
}

func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// progress shows events on stderr: one live line per stage on a terminal, plain lines elsewhere, nothing with -q.
type progress struct {
	w     io.Writer
	live  bool
	stage string
	text  string
	since time.Time
	open  bool // a live line is on the screen
}

func (a *app) progress() *progress {
	p := &progress{w: a.stderr, live: isTerminal(a.stderr)}
	if a.quiet {
		p.w = io.Discard
	}
	return p
}

func (p *progress) emit(e banger.Event) {
	if e.Layer != "" && !e.Done || e.Stage == "" {
		return // the line for all layers says enough, and an event without a stage is not for a person
	}
	now := time.Now()
	if e.Stage != p.stage {
		p.finish()
		p.stage, p.since = e.Stage, now
		p.text = ""
	}
	if !p.live {
		if e.Text != "" && e.Text != p.text {
			fmt.Fprintf(p.w, "%s: %s\n", text.Line(e.Stage), text.Limit(e.Text, text.MaxError))
		}
		if e.Layer == "" {
			p.text = e.Text
		}
		return
	}
	if e.Text != "" {
		p.text = e.Text
	}
	line := fmt.Sprintf("%-7s %s", text.Line(e.Stage), text.Limit(p.text, 60))
	switch {
	case e.Total > 0:
		line += fmt.Sprintf("  %s / %s", banger.FormatSize(e.Bytes), banger.FormatSize(e.Total))
	case e.Bytes > 0:
		line += "  " + banger.FormatSize(e.Bytes)
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s  %.1f s", line, now.Sub(p.since).Seconds())
	p.open = true
	if e.Done {
		p.finish()
	}
}

func (p *progress) finish() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

// close ends the last line.
func (p *progress) close() { p.finish() }
