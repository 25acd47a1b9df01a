package command

import (
	"cmp"
	"context"

	"banger/internal/cli/format"
)

// Changes prints a line for each thing that comes, changes what its line says, or goes. A template gets the things
// instead, and nothing of those that have gone.
type Changes[T any] struct {
	App    *App
	Format Format
	Line   func(T) (key, words string) // the line is the key, a space and the words
	Docker format.Aliases[T]           // for templates; may be nil
}

// Follow calls read, which calls show for each thing that is told, and gone with the key of each that has gone. It
// returns the error of read, or the first one of printing, which ends the context of read.
func (c Changes[T]) Follow(ctx context.Context,
	read func(ctx context.Context, show func(T), gone func(key string)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	known := map[string]string{} // the words that were printed last of each thing, by key
	show := func(v T) {
		key, words := c.Line(v)
		if last, ok := known[key]; ok && last == words {
			return
		}
		known[key] = words
		if c.Format.Template == nil {
			c.App.Say(key + " " + words)
		} else if err := Write(c.App, c.Format, []T{v}, c.Docker); err != nil {
			failed = cmp.Or(failed, err)
			cancel()
		}
	}
	gone := func(key string) {
		if c.Format.Template == nil {
			c.App.Say(key + " removed")
		}
		delete(known, key)
	}
	err := read(ctx, show, gone)
	return cmp.Or(failed, err)
}
