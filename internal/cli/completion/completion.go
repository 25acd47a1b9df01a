// Package completion completes words of a command line in a shell: names of VMs, images, networks, kernels and
// templates, and the values of flags. One table (table.go) says what completes each argument and each flag.
//
// It must not know what a command does, and it must neither start a daemon nor wait long for one.
package completion

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/cli/command"
)

// limit bounds the wait of a shell for the names that the daemon knows.
const limit = time.Second

// place is where a word is completed.
type place struct {
	*command.App
	command *cobra.Command
	args    []string    // the arguments before
	word    string      // what is typed of the word
	flag    *pflag.Flag // the flag whose value it is, or nil
}

// completer offers what may come at a place of a command line.
type completer func(p place) ([]string, cobra.ShellCompDirective)

// Register makes c and all its commands complete their arguments and the values of their flags. The arguments are those
// that the use of a command names.
func Register(a *command.App, c *cobra.Command) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		complete, ok := ofFlag(c, f)
		if !ok {
			return
		}
		c.RegisterFlagCompletionFunc(f.Name,
			func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
				return complete(place{a, c, args, word, f})
			})
	})
	if c.ValidArgsFunction == nil {
		c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			complete, ok := ofArgument(c, len(args))
			if !ok {
				complete = nothing
			}
			return complete(place{a, c, args, word, nil})
		}
	}
	for _, sub := range c.Commands() {
		Register(a, sub)
	}
}

// ofArgument returns what completes argument n of a command. It reports false if the command has no such argument, or
// if the table does not have it.
func ofArgument(c *cobra.Command, n int) (completer, bool) {
	words := arguments(c)
	if len(words) == 0 {
		return nil, false
	}
	word := words[len(words)-1]
	if n < len(words) {
		word = words[n]
	} else if !strings.Contains(word, "...") {
		return nil, false
	}
	complete, ok := argumentValues[word]
	return complete, ok
}

// arguments returns the words of a command's use behind its name, without flags and what belongs to them.
func arguments(c *cobra.Command) (words []string) {
	isFlag := func(word string) bool { return strings.HasPrefix(strings.TrimLeft(word, "[("), "-") }
	fields := strings.Fields(c.Use)[1:]
	for i, word := range fields {
		ofFlag := i > 0 && isFlag(fields[i-1]) && fields[i-1] != "[--]"
		if word == "|" { // another way to write the same arguments
			break
		}
		if word != "[flags]" && !isFlag(word) && !ofFlag {
			words = append(words, word)
		}
	}
	return words
}

// ofFlag returns what completes the values of a flag. It reports false for flags without values, and for those that the
// table does not have.
func ofFlag(c *cobra.Command, f *pflag.Flag) (completer, bool) {
	path := ""
	for at := c; at.HasParent(); at = at.Parent() {
		path = at.Name() + " " + path
	}
	complete, ok := flagValues[path+f.Name]
	if !ok {
		complete, ok = flagValues[f.Name]
	}
	return complete, ok && f.Value.Type() != "bool"
}

// Undecided returns the arguments and flags of c and its commands that no table has.
func Undecided(c *cobra.Command) (list []string) {
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if _, ok := ofFlag(c, f); !ok && f.Value.Type() != "bool" && free[f.Name] == "" {
			list = append(list, c.CommandPath()+" --"+f.Name)
		}
	})
	for i, word := range arguments(c) {
		if _, ok := ofArgument(c, i); !ok && !c.Hidden && c.Name() != "help" {
			list = append(list, c.CommandPath()+" "+word)
		}
	}
	for _, sub := range c.Commands() {
		list = append(list, Undecided(sub)...)
	}
	return list
}

// known returns a completer that offers fixed words, and those that the daemon lists. Without a daemon it offers the
// fixed words alone. It does not offer what is among the arguments already.
func known(list func(context.Context, place) ([]string, error), fixed ...string) completer {
	return func(p place) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		offered := slices.Clone(fixed)
		if p.DaemonRuns(ctx) {
			if more, err := list(ctx, p); err == nil {
				offered = append(offered, more...)
			}
		}
		slices.Sort(offered)
		offered = slices.DeleteFunc(slices.Compact(offered), func(w string) bool { return slices.Contains(p.args, w) })
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}

// nothing offers nothing: the text is free, or means something in the guest.
func nothing(place) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// file offers files of this host.
func file(place) ([]string, cobra.ShellCompDirective) { return nil, cobra.ShellCompDirectiveDefault }

// directory offers directories of this host.
func directory(place) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// words offers some words.
func words(list ...string) completer {
	return func(place) ([]string, cobra.ShellCompDirective) { return list, cobra.ShellCompDirectiveNoFileComp }
}

// wordsOrFile offers some words, and files.
func wordsOrFile(list ...string) completer {
	return func(place) ([]string, cobra.ShellCompDirective) { return list, cobra.ShellCompDirectiveDefault }
}

// beginnings offers words with an end behind which more must be typed.
func beginnings(end string, list ...string) completer {
	offered := make([]string, len(list))
	for i, word := range list {
		offered[i] = word + end
	}
	return func(place) ([]string, cobra.ShellCompDirective) {
		return offered, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}
