package background

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/text"
)

func newEvents(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "events [flags] VM",
		Short: "Show what happens to the sessions of a VM, until Ctrl-C",
		Args:  command.Usage(cobra.ExactArgs(1)),
	}
	since := c.Flags().String("since", "", "the cursor of the last event that is known; each JSON event has one")
	once := c.Flags().Bool("no-stream", false, "end at the present state")
	parsed := command.Formats(c)
	c.Flags().Lookup("format").Usage = "json: an object per line, the whole state first; or a template: '{{.name}}'"
	c.RunE = a.WithFormat(parsed, func(ctx context.Context, client *client.Client, f command.Format, args []string) error {
		if f.JSON {
			return client.SessionEvents(ctx, args[0], *since, !*once,
				func(c banger.SessionChange) { text.WriteJSON(a.Stdout, c, "") })
		}
		lines := command.Changes[banger.Session]{App: a, Format: f, Line: eventLine}
		return lines.Follow(ctx, func(ctx context.Context, show func(banger.Session), gone func(string)) error {
			return client.SessionEvents(ctx, args[0], *since, !*once, func(c banger.SessionChange) {
				for _, s := range c.Sessions {
					show(s)
				}
				if c.Session != nil {
					show(*c.Session)
				}
				if c.Removed != "" {
					gone(c.Removed)
				}
			})
		})
	})
	return c
}

// eventLine returns the name of a session, and its state without times.
func eventLine(s banger.Session) (name, words string) {
	words = s.State
	switch {
	case s.State == banger.SessionRunning:
		words += render.Readiness(s.Readiness)
	case s.State == banger.SessionEnded && s.Exit != nil:
		words += fmt.Sprintf(" (%d)", s.Exit.Status())
	}
	if s.Reason != "" {
		words += ": " + s.Reason
	}
	return s.Name, words
}
