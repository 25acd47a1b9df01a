package command

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// list is a flag that may be given several times. Its help says so in docker's word instead of the library's.
type list struct{ pflag.Value }

// Type returns the word that the help shows for a value.
func (list) Type() string { return "list" }

// PlainHelp takes the names of Go's types out of the help of c and its commands.
func PlainHelp(c *cobra.Command) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if kind := f.Value.Type(); kind == "stringArray" || kind == "stringSlice" {
			f.Value, f.DefValue = list{f.Value}, "" // the library would print an empty list
		}
	})
	for _, sub := range c.Commands() {
		PlainHelp(sub)
	}
}
