// Package render shows things to the person or program that runs the CLI: lines, tables, JSON, errors and progress.
// Text of guests, images and registries becomes printable here, because it must not control the user's terminal.
//
// It must not know commands or the daemon: it gets values and writers.
package render

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"banger"
	"banger/internal/text"
)

// maxMessage is the maximum number of characters of a printed error, which may contain our text and text from
// elsewhere.
const maxMessage = 2 * text.MaxError

// JSON writes v as indented JSON in which all text is printable.
func JSON(w io.Writer, v any) error { return text.WriteJSON(w, v, "  ") }

// Line writes one line of printable text.
func Line(w io.Writer, line string) { fmt.Fprintln(w, text.Line(line)) }

// Error writes an error as one line of bounded length.
func Error(w io.Writer, err error) { fmt.Fprintln(w, "banger:", Message(err)) }

// Message returns the text of an error as one printable line of bounded length.
func Message(err error) string { return text.Limit(err.Error(), maxMessage) }

// Table is an aligned list. Flush writes it.
type Table struct{ w *tabwriter.Writer }

// NewTable returns a table with the titles of its columns.
func NewTable(w io.Writer, head ...string) Table {
	t := Table{tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)}
	t.Row(head...)
	return t
}

// Row adds a row. It makes the cells printable in place.
func (t Table) Row(cells ...string) {
	for i, c := range cells {
		cells[i] = text.Line(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// Flush writes the rows.
func (t Table) Flush() error { return t.w.Flush() }

// Copy copies output of a guest to w. On a terminal it makes the text printable, because a guest must not control the
// user's terminal. Elsewhere it copies the text unchanged.
func Copy(w io.Writer, r io.Reader) error {
	to, flush := Printable(w)
	_, err := io.Copy(to, r)
	return errors.Join(err, flush())
}

// Printable returns a writer for what a guest wrote, which makes it printable if w is a terminal. flush writes what is
// incomplete at the end.
func Printable(w io.Writer) (to io.Writer, flush func() error) {
	if !IsTerminal(w) {
		return w, func() error { return nil }
	}
	p := text.NewWriter(w)
	return p, p.Flush
}

// Since returns the time that has gone since t, for a person.
func Since(t time.Time) string {
	return Span(time.Since(t))
}

// Span returns how long d is, for a person.
func Span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// Age returns how long ago t was, for a person.
func Age(t time.Time) string { return Since(t) + " ago" }

// Digest returns the first characters of a digest, for a person.
func Digest(digest string) string { return text.Limit(strings.TrimPrefix(digest, "sha256:"), 13) }

// TerminalSize returns the size of the terminal w in characters, or 0, 0 if w is not a terminal.
func TerminalSize(w io.Writer) (rows, columns uint16) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	c, r, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return uint16(r), uint16(c)
}

// IsTerminal reports whether v is a file that is a terminal.
func IsTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Readiness returns what a ready probe has seen, in parentheses, or "" without a probe.
func Readiness(r *banger.Readiness) string {
	switch {
	case r == nil:
		return ""
	case r.Ready:
		return " (ready)"
	case r.Reason == "":
		return " (starting)"
	}
	return " (not ready: " + text.Limit(r.Reason, 60) + ")"
}
