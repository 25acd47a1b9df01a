// Package toml reads files of TOML, and says on which line each of their keys is. It refuses files that are too large
// or not TOML, in words for the person who wrote them.
//
// It must not know what a file is for, nor which keys it may have.
package toml

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Max is the largest size of a file, in bytes.
const Max = 1 << 20

// Lines has the line of each key. Its keys are paths.
type Lines map[string]int

// maxDepth bounds the paths in Lines. Deeper keys have the line of the key above.
const maxDepth = 6

// At returns the line of a key, such as At("policy", "allow") or At("file_sync", "0", "host"). For a key that is not in
// the file it returns the line of the nearest key above it, or 1.
func (l Lines) At(path ...string) int {
	for n := len(path); n > 0; n-- {
		if line, ok := l[join(path[:n])]; ok {
			return line
		}
	}
	return 1
}

// Has reports whether the file has a key.
func (l Lines) Has(path ...string) bool { return l[join(path)] > 0 }

func join(path []string) string { return strings.Join(path, "\x00") }

// Unknown is the error for a key that the Go value does not have.
type Unknown struct {
	Line  int
	Path  []string
	Known []string // the keys that may be in its place, as far as they are known
}

func (u *Unknown) Error() string {
	return fmt.Sprintf("line %d: the key %.80q is unknown", u.Line, strings.Join(u.Path, "."))
}

// Decode reads text into v, and leaves out what v does not have.
func Decode(text []byte, v any) (Lines, error) { return decode(text, v, false) }

// DecodeStrict reads text into v. A key that v does not have is an error of type *Unknown.
func DecodeStrict(text []byte, v any) (Lines, error) { return decode(text, v, true) }

func decode(text []byte, v any, strict bool) (Lines, error) {
	if len(text) > Max {
		return nil, fmt.Errorf("it has more than %d bytes", Max)
	}
	lines, err := linesOf(text)
	if err != nil {
		return nil, err
	}
	d := toml.NewDecoder(bytes.NewReader(text))
	if strict {
		if u := lines.unknown(reflect.TypeOf(v)); u != nil { // the decoder does not tell CPUS from cpus
			return nil, u
		}
		d.DisallowUnknownFields()
	}
	return lines, explain(d.Decode(v))
}

// explain returns an error of the decoder in our own words.
func explain(err error) error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) && len(missing.Errors) > 0 {
		line, _ := missing.Errors[0].Position()
		return &Unknown{Line: line, Path: missing.Errors[0].Key()}
	}
	var wrong *toml.DecodeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		if key := strings.Join(wrong.Key(), "."); key != "" {
			return fmt.Errorf("line %d: the value of %.80q is of the wrong kind", line, key)
		}
		return fmt.Errorf("line %d, column %d: this is not TOML", line, column)
	}
	return errors.New("it is not TOML")
}

// linesOf returns the lines of all keys of a file.
func linesOf(text []byte) (Lines, error) {
	w := walker{text: text, line: 1, lines: Lines{}, tables: map[string]int{}, heads: map[string]bool{}}
	w.Reset(text)
	for w.NextExpression() {
		switch e := w.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			w.table(e)
		case unstable.KeyValue:
			w.value(w.at, e)
		}
	}
	var wrong *unstable.ParserError
	if errors.As(w.Error(), &wrong) {
		before := text[:w.Range(wrong.Highlight).Offset]
		return nil, fmt.Errorf("line %d: this is not TOML", bytes.Count(before, []byte("\n"))+1)
	}
	return w.lines, w.twice
}

// walker notes the lines of keys.
type walker struct {
	unstable.Parser
	text  []byte
	seen  int // bytes before which line ends are counted
	line  int // the line there
	lines Lines

	at     []string       // the table in which the next keys are
	tables map[string]int // arrays of tables, with the number of the last one
	heads  map[string]bool
	twice  error // the first key that is there twice
}

// table notes the header of a table, or of one in an array of tables.
func (w *walker) table(e *unstable.Node) {
	w.at = nil
	for keys := e.Key(); keys.Next(); {
		last := keys.IsLast() && e.Kind == unstable.ArrayTable
		w.note(keys.Node(), &w.at)
		name := join(w.at)
		n, isArray := w.tables[name]
		if last {
			if isArray {
				n++
			}
			w.tables[name] = n
		}
		if (isArray || last) && len(w.at) < maxDepth {
			w.at = append(w.at, strconv.Itoa(n))
			if name := join(w.at); w.lines[name] == 0 {
				w.lines[name] = w.line
			}
		}
	}
	name := join(w.at)
	if e.Kind == unstable.Table && w.heads[name] && len(w.at) < maxDepth {
		w.again(w.at)
	}
	w.heads[name] = true
}

// again notes that a key is there twice.
func (w *walker) again(path []string) {
	if w.twice == nil {
		w.twice = fmt.Errorf("line %d: the key %.80q is there twice", w.line, strings.Join(path, "."))
	}
}

// value notes a key with its value, which may be a table in braces.
func (w *walker) value(at []string, e *unstable.Node) {
	path, known := slices.Clone(at), false
	for keys := e.Key(); keys.Next(); {
		known = len(path) < maxDepth && w.lines.Has(append(slices.Clone(path), string(keys.Node().Data))...)
		w.note(keys.Node(), &path)
	}
	if known {
		w.again(path)
	}
	if e.Value().Kind != unstable.InlineTable || len(path) >= maxDepth {
		return
	}
	for inner := e.Value().Children(); inner.Next(); {
		w.value(path, inner.Node())
	}
}

// note adds a part of a key to a path, and notes its line.
func (w *walker) note(key *unstable.Node, path *[]string) {
	if len(*path) >= maxDepth {
		return
	}
	*path = append(*path, string(key.Data))
	if at := int(key.Raw.Offset); at >= w.seen && at <= len(w.text) {
		w.line += bytes.Count(w.text[w.seen:at], []byte("\n"))
		w.seen = at
	}
	if name := join(*path); w.lines[name] == 0 {
		w.lines[name] = w.line
	}
}
