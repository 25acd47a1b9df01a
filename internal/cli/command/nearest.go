package command

import (
	"github.com/spf13/cobra"

	near "banger/internal/nearest"
)

// nearest returns the command of c that a user most probably meant by word, or "".
func nearest(c *cobra.Command, word string) string {
	names := map[string]string{}
	var known []string
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		for _, name := range append([]string{sub.Name()}, sub.Aliases...) {
			names[name] = sub.Name()
			known = append(known, name)
		}
	}
	return names[near.Word(word, known)]
}
