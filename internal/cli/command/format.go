package command

import (
	"bytes"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/cli/format"
	"banger/internal/cli/render"
)

// Format is what --format asks for. Without JSON and without a template it is a text for a person.
type Format struct {
	JSON     bool
	Template *format.Template
}

// Formats adds the flag --format to c, for a list. It returns a function that parses the flag.
func Formats(c *cobra.Command) func() (Format, error) {
	value := c.Flags().String("format", "table", "table, json, or a template: '{{.id}} {{.name}}'")
	return func() (Format, error) { return formatOf(*value, format.Parse) }
}

// FormatsOne adds the flag --format or -f to c, for single values. normal is what the flag is if it is not given: json,
// or "" for a text.
func FormatsOne(c *cobra.Command, normal string) func() (Format, error) {
	value := c.Flags().StringP("format", "f", normal, "json, or a template: '{{.id}}'")
	return func() (Format, error) { return formatOf(*value, format.ParseOne) }
}

// IsText reports whether a text for a person is wanted.
func (f Format) IsText() bool { return !f.JSON && f.Template == nil }

// WithFormat returns a RunFunc that calls f with what parsed returns, when a daemon answers. It starts a daemon if
// necessary.
func (a *App) WithFormat(parsed func() (Format, error),
	f func(ctx context.Context, client *client.Client, o Format, args []string) error) RunFunc {
	return func(c *cobra.Command, args []string) error {
		o, err := parsed()
		if err != nil {
			return err
		}
		return a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			return f(ctx, client, o, args)
		})(c, args)
	}
}

func formatOf(value string, parse func(string) (format.Template, error)) (Format, error) {
	switch value {
	case "", "table":
		return Format{}, nil
	case "json":
		return Format{JSON: true}, nil
	}
	if !strings.Contains(value, "{{") {
		return Format{}, UsageErrorf("--format is %q, but must be table, json or a template such as '{{.name}}'", value)
	}
	t, err := parse(value)
	if err != nil {
		return Format{}, &ExitError{ExitUsage, err}
	}
	return Format{Template: &t}, nil
}

// Write writes a list as JSON or by a template. docker may be nil.
func Write[T any](a *App, f Format, list []T, docker format.Aliases[T]) error {
	if f.Template == nil {
		return render.JSON(a.Stdout, list)
	}
	var text bytes.Buffer
	if err := format.Write(&text, *f.Template, list, docker); err != nil {
		return err
	}
	return render.Copy(a.Stdout, &text)
}
