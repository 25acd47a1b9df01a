// Package format shows values by a template that a user writes, as docker's --format does (package text/template). A
// value has its own fields, which have their names in JSON, and docker's fields as aliases.
//
// It must not know commands, nor where values come from.
package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"

	"banger"
)

// Aliases returns docker's fields of a value.
type Aliases[T any] func(T) map[string]any

// Template is what a user wrote after --format.
type Template struct {
	rows  *template.Template
	heads *template.Template // nil if this is no table
}

// Parse parses a template for a list, of which each value becomes a line. In front of it may be the word table; then
// the lines are aligned and have a title. As in docker, \t and \n mean a tab and a line end.
func Parse(text string) (Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	body, table := strings.CutPrefix(text, "table ")
	rows, err := parse(strings.Trim(body, " "), functions)
	if err != nil || !table {
		return Template{rows: rows}, err
	}
	heads, err := parse(strings.Trim(body, " "), headFunctions)
	return Template{rows, heads}, err
}

// ParseOne parses a template for single values, as inspect has it.
func ParseOne(text string) (Template, error) {
	rows, err := parse(text, functions)
	return Template{rows: rows}, err
}

func parse(text string, f template.FuncMap) (*template.Template, error) {
	t, err := template.New("").Option("missingkey=error").Funcs(f).Parse(text)
	if err != nil {
		_, why, _ := strings.Cut(strings.TrimPrefix(err.Error(), "template: :"), ": ")
		return nil, banger.Errorf(banger.CodeInvalid, "--format is not a template: %s", why).
			WithHint("for example: --format '{{.name}} {{.state}}'; or use --format json")
	}
	return t, nil
}

// Write writes one line for each value of list to w.
func Write[T any](w io.Writer, t Template, list []T, docker Aliases[T]) error {
	out := w
	if t.heads != nil {
		table := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
		defer table.Flush()
		out = table
		var zero T
		var head bytes.Buffer
		// A template that computes with the values, and not only shows them, has no titles.
		if t.heads.Execute(&head, headings(fields(zero, docker))) == nil {
			fmt.Fprintln(out, head.String())
		}
	}
	for _, v := range list {
		var line bytes.Buffer
		o := fields(v, docker)
		if err := t.rows.Execute(&line, o); err != nil {
			return explain(err, o)
		}
		fmt.Fprintln(out, line.String())
	}
	return nil
}

// fields returns the fields of v under their own names and under docker's.
func fields[T any](v T, docker Aliases[T]) object {
	o, _ := plain(v).(object)
	if o == nil {
		o = object{}
	}
	if docker != nil {
		maps.Copy(o, docker(v))
	}
	return o
}

var (
	noField = regexp.MustCompile(`map has no entry for key "([^"]*)"` +
		`|can't evaluate field (\w+) in|nil pointer evaluating \S*\.(\w+)$`)
	atAction  = regexp.MustCompile(`at <(.*?)>: `)
	outOfList = regexp.MustCompile(`index out of range: (-?\d+)`)
)

// explain returns the error of a template that does not fit the value o, without the words of Go.
func explain(err error, o object) error {
	if _, ok := errors.AsType[template.ExecError](err); !ok {
		return err // the writer's
	}
	said, action := err.Error(), "it"
	if m := atAction.FindStringSubmatch(said); m != nil {
		action = m[1]
	}
	if m := noField.FindStringSubmatch(said); m != nil {
		name := m[1] + m[2] + m[3]
		e := banger.Errorf(banger.CodeInvalid, "--format: there is no field %q in {{%s}}", name, action)
		if action == "."+name {
			return e.WithHint("the fields are: %s", strings.Join(slices.Sorted(maps.Keys(o)), " "))
		}
		return e.WithHint("see all fields: --format json")
	}
	why := "it does not suit the value"
	if m := outOfList.FindStringSubmatch(said); m != nil {
		why = "there is no element " + m[1]
	}
	return banger.Errorf(banger.CodeInvalid, "--format: {{%s}} cannot be evaluated: %s", action, why).
		WithHint("see all fields: --format json")
}

// functions are those of docker (docs.docker.com/engine/cli/formatting).
var functions = template.FuncMap{
	"json": func(v any) (string, error) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v)
		return strings.TrimSuffix(b.String(), "\n"), err
	},
	"split": strings.Split,
	"join": func(list any, between string) (string, error) {
		switch l := list.(type) {
		case []any:
			words := make([]string, len(l))
			for i, v := range l {
				words[i] = fmt.Sprint(v)
			}
			return strings.Join(words, between), nil
		case []string:
			return strings.Join(l, between), nil
		}
		return "", errors.New("not a list")
	},
	"title":    title,
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"pad":      pad,
	"truncate": truncate,
}

// headFunctions leave a title as it is. Only pad does its work, so that columns fit.
var headFunctions = template.FuncMap{
	"json":     func(v any) any { return v },
	"split":    func(v any, _ string) any { return v },
	"join":     func(v any, _ string) any { return v },
	"title":    func(v any) any { return v },
	"lower":    func(v any) any { return v },
	"upper":    func(v any) any { return v },
	"pad":      func(v any, before, after int) any { return pad(fmt.Sprint(v), before, after) },
	"truncate": func(v any, _ int) any { return v },
}

// maxPad is the maximum number of blanks that pad adds on one side.
const maxPad = 1000

func pad(s string, before, after int) string {
	blanks := func(n int) string { return strings.Repeat(" ", min(max(n, 0), maxPad)) }
	if s == "" {
		return s
	}
	return blanks(before) + s + blanks(after)
}

func truncate(s string, n int) string {
	if r := []rune(s); n >= 0 && len(r) > n {
		return string(r[:n])
	}
	return s
}

func title(s string) string {
	if s == "" {
		return s
	}
	r := []rune(s)
	return strings.ToUpper(string(r[:1])) + string(r[1:])
}
