package cli

import (
	"context"

	"github.com/spf13/cobra"

	"banger/internal/api"
)

// listing says how to get and show a list of T.
type listing[T any] struct {
	use, short string
	aliases    []string
	get        func(context.Context, *api.Client) ([]T, error)
	name       func(T) string // for -q
	head       []string
	row        func(T) []string
}

// listCommand returns a command without arguments that prints a table, JSON or, with -q, the names alone.
func listCommand[T any](a *app, l listing[T]) *cobra.Command {
	var format string
	c := &cobra.Command{Use: l.use, Aliases: l.aliases, Short: l.short, Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			list, err := l.get(c.Context(), client)
			if err != nil {
				return err
			}
			return printList(a, l, list, format)
		}}
	c.Flags().StringVar(&format, "format", "table", "table or json")
	return c
}

func printList[T any](a *app, l listing[T], list []T, format string) error {
	if format == "json" {
		return a.printJSON(list)
	}
	if a.quiet {
		for _, v := range list {
			a.say(l.name(v))
		}
		return nil
	}
	t := a.table(l.head...)
	for _, v := range list {
		t.row(l.row(v)...)
	}
	return t.flush()
}
