package cli

import (
	"regexp"
	"testing"

	"github.com/spf13/cobra"

	"banger/internal/cli/command"
)

// TestHelpHasNoWordsOfGo reads the help of every command.
func TestHelpHasNoWordsOfGo(t *testing.T) {
	t.Parallel()
	words := regexp.MustCompile(`stringArray|stringSlice|\bstrings\b|int(32|64|Slice)|uint|float64|\bduration\b|\bnil\b`)
	var read func(c *cobra.Command)
	read = func(c *cobra.Command) {
		if w := words.FindString(c.UsageString()); w != "" {
			t.Errorf("the help of %q has the word %q", c.CommandPath(), w)
		}
		for _, sub := range c.Commands() {
			read(sub)
		}
	}
	read(newRoot(&app{App: &command.App{}}))
}
