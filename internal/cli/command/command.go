package command

import (
	"context"
	"slices"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/format"
	"banger/internal/cli/render"
	"banger/internal/text"
)

// RunFunc is what cobra runs.
type RunFunc = func(*cobra.Command, []string) error

// WithClient returns a RunFunc that calls f when a daemon answers. It starts a daemon if necessary.
func (a *App) WithClient(f func(ctx context.Context, client *client.Client, args []string) error) RunFunc {
	return func(c *cobra.Command, args []string) error {
		client, err := a.Connect(c.Context())
		if err != nil {
			return err
		}
		return f(c.Context(), client, args)
	}
}

// TableOrJSON adds the flag --format, which is table or json, to c. It returns a function that checks the flag and
// reports whether JSON is wanted.
func TableOrJSON(c *cobra.Command) func() (json bool, err error) {
	format := c.Flags().String("format", "table", "table or json")
	return func() (bool, error) {
		if *format != "table" && *format != "json" {
			return false, UsageErrorf("--format is %q, but must be table or json", *format)
		}
		return *format == "json", nil
	}
}

// Listing says how a list of T is shown.
type Listing[T any] struct {
	Get    func(ctx context.Context, client *client.Client, args []string) ([]T, error)
	Name   func(T) string // for -q
	Head   []string
	More   func() []string // columns that flags add; may be nil
	Row    func(T) []string
	Docker format.Aliases[T] // for templates; may be nil
}

// Lists completes c, which prints a list as a table, as JSON, by a template or, with -q, as names alone.
func Lists[T any](a *App, c *cobra.Command, l Listing[T]) *cobra.Command {
	c.RunE = a.WithFormat(Formats(c), func(ctx context.Context, client *client.Client, f Format, args []string) error {
		list, err := l.Get(ctx, client, args)
		if err != nil {
			return err
		}
		switch {
		case !f.IsText():
			return Write(a, f, list, l.Docker)
		case a.Quiet:
			for _, v := range list {
				a.Say(l.Name(v))
			}
			return nil
		}
		head := l.Head
		if l.More != nil {
			head = append(slices.Clone(head), l.More()...)
		}
		t := render.NewTable(a.Stdout, head...)
		for _, v := range list {
			t.Row(l.Row(v)...)
		}
		return t.Flush()
	})
	return c
}

// Inspects completes c, which prints the objects that its arguments name as one JSON array or by a template, and errors
// for the others. docker may be nil.
func Inspects[T any](a *App, c *cobra.Command, docker format.Aliases[T],
	get func(ctx context.Context, client *client.Client, ref string) (T, error)) *cobra.Command {
	parsed := FormatsOne(c, "json")
	c.RunE = a.WithFormat(parsed, func(ctx context.Context, client *client.Client, f Format, refs []string) error {
		found := []T{}
		failed := false
		for _, ref := range refs {
			v, err := get(ctx, client, ref)
			if err != nil {
				failed = true
				render.Error(a.Stderr, err)
				continue
			}
			found = append(found, v)
		}
		f.JSON = f.Template == nil
		if err := Write(a, f, found, docker); err != nil {
			return err
		}
		if failed {
			return &ExitError{Code: ExitFailed}
		}
		return nil
	})
	return c
}

// TailLines parses the value of --tail. It returns -1 for all lines.
func TailLines(text string) (int, error) {
	if text == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, UsageErrorf("--tail is %q, but must be a number of lines or all", text)
	}
	return n, nil
}

// IsJSON reports whether the flag --format asks for JSON. Other formats are a usage error.
func IsJSON(format string) (bool, error) {
	if format != "" && format != "json" {
		return false, UsageErrorf("--format is %q, but only json is known", format)
	}
	return format == "json", nil
}

// Operation is one run of a command with progress. It shows the events, and what the command has made.
type Operation struct {
	Client *client.Client
	Emit   banger.Emit // shows an event

	app  *App
	json bool
}

// WithProgress completes c, whose events are lines for a person on stderr or, with --format json, lines of JSON on
// stdout.
func WithProgress(a *App, c *cobra.Command,
	f func(ctx context.Context, o Operation, args []string) error) *cobra.Command {
	format := c.Flags().String("format", "", "json: progress as one JSON event a line, on stdout")
	c.RunE = func(c *cobra.Command, args []string) error {
		asJSON, err := IsJSON(*format)
		if err != nil {
			return err
		}
		client, err := a.Connect(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			emit := func(e banger.Event) { text.WriteJSON(a.Stdout, e, "") }
			return f(c.Context(), Operation{client, emit, a, true}, args)
		}
		p := a.Progress()
		defer p.Close()
		return f(c.Context(), Operation{client, p.Emit, a, false}, args)
	}
	return c
}

// Image prints the image that a command has made, unless err says that it has made none.
func (o Operation) Image(img banger.Image, err error) error {
	if err != nil {
		return err
	}
	if o.json {
		return text.WriteJSON(o.app.Stdout, banger.Event{Image: &img}, "")
	}
	o.app.Say(img.Digest)
	return nil
}

// Images prints the images that a command has brought in. err says why there are no more.
func (o Operation) Images(list []banger.Image, err error) error {
	for _, img := range list {
		if o.json {
			text.WriteJSON(o.app.Stdout, banger.Event{Image: &img}, "")
		} else {
			o.app.Say(img.Reference)
		}
	}
	return err
}

// Each runs f for every ref concurrently and prints the results in the order given. A failure for one ref does not
// stop the others.
func (a *App) Each(refs []string, f func(i int, ref string) (string, error)) error {
	type result struct {
		line string
		err  error
	}
	results := make([]result, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() { results[i].line, results[i].err = f(i, ref) })
	}
	wg.Wait()
	failed := false
	for _, r := range results {
		if r.err != nil {
			failed = true
			render.Error(a.Stderr, r.err)
			continue
		}
		a.Say(r.line)
	}
	if failed {
		return &ExitError{Code: ExitFailed}
	}
	return nil
}

// Removes completes c, which removes what its arguments name and prints the names.
func Removes(a *App, c *cobra.Command, remove func(context.Context, *client.Client, string) error) *cobra.Command {
	c.RunE = a.WithClient(func(ctx context.Context, client *client.Client, refs []string) error {
		return a.Each(refs, func(_ int, ref string) (string, error) { return ref, remove(ctx, client, ref) })
	})
	return c
}
