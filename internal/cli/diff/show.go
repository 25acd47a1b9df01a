package diff

import (
	"fmt"
	"io"
	"strings"

	"banger"
	"banger/internal/cli/render"
	"banger/internal/text"
)

// shower shows changes.
type shower interface {
	show(banger.FileChange) error
	end() error
}

// each shows each change by itself.
type each func(banger.FileChange) error

func (e each) show(c banger.FileChange) error { return e(c) }
func (each) end() error                       { return nil }

func say(w io.Writer, line string) error {
	_, err := fmt.Fprintln(w, line)
	return err
}

// inLine shows ends of lines and tabs as what they are, not as spaces.
var inLine = strings.NewReplacer("\n", `\x0a`, "\t", `\x09`)

// printable returns a name from a guest as printable text in one line.
func printable(name string) string { return text.Line(inLine.Replace(name)) }

// pathOf returns the path of a change, printable.
func pathOf(c banger.FileChange) string {
	if c.RawPath != nil {
		return printable(string(c.RawPath))
	}
	return printable(c.Path)
}

// letters stand for the kinds of changes, as in docker and git.
var letters = map[string]string{banger.FileAdded: "A", banger.FileRemoved: "D", banger.FileChanged: "M"}

// line returns a change in one line.
func line(c banger.FileChange) string {
	if c.Note != "" {
		return text.Line("? " + pathOf(c) + "  " + c.Note)
	}
	words := []string{letters[c.Change] + " " + pathOf(c)}
	for _, d := range c.Differs {
		if d == banger.DiffersContent && len(c.Differs) == 1 {
			break
		}
		words = append(words, differs(c, d))
	}
	return text.Line(strings.Join(words, "  "))
}

// differs returns what is different in words, with both values.
func differs(c banger.FileChange, what string) string {
	value := map[string]func(*banger.FileState) string{
		banger.DiffersMode:   func(s *banger.FileState) string { return fmt.Sprintf("%04o", s.Mode&0o7777) },
		banger.DiffersOwner:  func(s *banger.FileState) string { return fmt.Sprintf("%d:%d", s.UID, s.GID) },
		banger.DiffersType:   func(s *banger.FileState) string { return typeOf(s.Mode) },
		banger.DiffersTarget: func(s *banger.FileState) string { return printable(s.Target) },
		banger.DiffersDevice: func(s *banger.FileState) string { return s.Device },
	}[what]
	if value == nil || c.Before == nil || c.After == nil {
		return what
	}
	return what + " " + value(c.Before) + " -> " + value(c.After)
}

// typeOf returns the type of a file in st_mode.
func typeOf(mode uint32) string {
	types := map[uint32]string{0o010: "pipe", 0o020: "character device", 0o040: "directory", 0o060: "block device",
		0o100: "file", 0o120: "symlink", 0o140: "socket"}
	if name, ok := types[mode>>9&0o170]; ok {
		return name
	}
	return "unknown"
}

// nothing is the name of a file that is not there, in a patch.
const nothing = "/dev/null"

// patches shows the lines of changes with their patches.
type patches struct{ w io.Writer }

func (p patches) show(c banger.FileChange) error {
	if err := say(p.w, line(c)); err != nil {
		return err
	}
	if c.Binary {
		before, after := "a"+pathOf(c), "b"+pathOf(c)
		switch c.Change {
		case banger.FileAdded:
			before = nothing
		case banger.FileRemoved:
			after = nothing
		}
		return say(p.w, "Binary files "+before+" and "+after+" differ")
	}
	text := c.Patch
	if render.IsTerminal(p.w) {
		text = forTerminal(text)
	}
	_, err := io.WriteString(p.w, text)
	return err
}

func (patches) end() error { return nil }

// forTerminal returns a patch in which all but tabs and ends of lines is printable. Nothing of it is left out, unlike
// colours of an output: what differs must be seen.
func forTerminal(patch string) string {
	lines := strings.Split(patch, "\n")
	for i, l := range lines {
		cells := strings.Split(l, "\t")
		for k, cell := range cells {
			cells[k] = text.Line(cell)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}

// stat counts lines, and shows all at the end.
type stat struct {
	w    io.Writer
	rows []statRow
}

type statRow struct {
	name        string
	size        string // instead of lines
	more, fewer int
}

func (s *stat) show(c banger.FileChange) error {
	r := statRow{name: pathOf(c)}
	switch {
	case c.Note != "":
		r.size = "not compared"
	case c.Binary:
		r.size = fmt.Sprintf("Bin %d -> %d bytes", sizeOf(c.Before), sizeOf(c.After))
	default:
		r.more, r.fewer = count(c.Patch)
	}
	s.rows = append(s.rows, r)
	return nil
}

func sizeOf(s *banger.FileState) int64 {
	if s == nil {
		return 0
	}
	return s.Size
}

// count returns how many lines a patch adds and removes.
func count(patch string) (more, fewer int) {
	n := 0
	for l := range strings.Lines(patch) {
		if n++; n <= 2 { // the names
			continue
		}
		switch l[0] {
		case '+':
			more++
		case '-':
			fewer++
		}
	}
	return more, fewer
}

// graph is the maximum length of the signs behind a file.
const graph = 40

func (s *stat) end() error {
	most, wide := 1, 0
	for _, r := range s.rows {
		most, wide = max(most, r.more+r.fewer), max(wide, len([]rune(r.name)))
	}
	more, fewer := 0, 0
	for _, r := range s.rows {
		more, fewer = more+r.more, fewer+r.fewer
		words := r.size
		if words == "" {
			words = fmt.Sprintf("%d %s%s", r.more+r.fewer, signs("+", r.more, most), signs("-", r.fewer, most))
		}
		pad := strings.Repeat(" ", wide-len([]rune(r.name)))
		if err := say(s.w, strings.TrimRight(" "+r.name+pad+" | "+words, " ")); err != nil {
			return err
		}
	}
	return say(s.w, fmt.Sprintf(" %s changed, %d insertions(+), %d deletions(-)", number(len(s.rows), "file"), more,
		fewer))
}

// signs returns n signs, or fewer in proportion if the most of any file is too many.
func signs(sign string, n, most int) string {
	if most > graph && n > 0 {
		n = max(1, n*graph/most)
	}
	return strings.Repeat(sign, n)
}
