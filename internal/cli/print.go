package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"banger"
)

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
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
		cells[i] = printable(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// printable makes text from a guest, image or registry safe for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// safeOutput is stdout; on a terminal control bytes are dropped but for line
// ends and tabs, since a guest's console must not steer the user's terminal.
func (a *app) safeOutput() io.Writer {
	if !isTerminal(a.stdout) {
		return a.stdout
	}
	return filterWriter{a.stdout}
}

type filterWriter struct{ w io.Writer }

func (f filterWriter) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p))
	for _, b := range p {
		if b >= 0x20 && b != 0x7f || b == '\n' || b == '\t' {
			out = append(out, b)
		}
	}
	if _, err := f.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
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

// progress shows events on stderr: one live line per stage on a terminal, plain
// lines elsewhere, nothing with -q.
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
	if e.Layer != "" && !e.Done {
		return // the line of all layers says enough
	}
	now := time.Now()
	if e.Stage != p.stage {
		p.finish()
		p.stage, p.since = e.Stage, now
		p.text = ""
	}
	if !p.live {
		if e.Text != "" && e.Text != p.text {
			fmt.Fprintf(p.w, "%s: %s\n", printable(e.Stage), printable(e.Text))
		}
		if e.Layer == "" {
			p.text = e.Text
		}
		return
	}
	if e.Text != "" {
		p.text = e.Text
	}
	line := fmt.Sprintf("%-7s %s", e.Stage, shorten(p.text, 60))
	switch {
	case e.Total > 0:
		line += fmt.Sprintf("  %s / %s", banger.FormatSize(e.Bytes), banger.FormatSize(e.Total))
	case e.Bytes > 0:
		line += "  " + banger.FormatSize(e.Bytes)
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s  %.1f s", printable(line), now.Sub(p.since).Seconds())
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
