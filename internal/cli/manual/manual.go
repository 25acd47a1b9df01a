// Package manual writes the man pages of commands, from what the commands say of themselves.
//
// It must not know any command.
package manual

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger"
	"banger/internal/cli/command"
)

// New returns the command that make install uses. It is hidden: its users read the pages with man.
func New() *cobra.Command {
	return &cobra.Command{
		Use:    "manual DIR",
		Short:  "Write the man pages of all commands into a directory",
		Hidden: true,
		Args:   command.Usage(cobra.ExactArgs(1)),
		RunE:   func(c *cobra.Command, args []string) error { return Write(args[0], c.Root()) },
	}
}

// Write writes a page for c and for each of its commands that are not hidden into a directory that exists.
func Write(dir string, c *cobra.Command) error {
	file := filepath.Join(dir, pageName(c)+".1")
	if err := os.WriteFile(file, []byte(Page(c, built())), 0o644); err != nil {
		return banger.Errorf(banger.CodeInvalid, "cannot write the page %s: %w", file, banger.Cause(err))
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			if err := Write(dir, sub); err != nil {
				return err
			}
		}
	}
	return nil
}

// built returns the day of the commit that this program was built from, or today.
func built() time.Time {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if day, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return day
			}
		}
	}
	return time.Now()
}

// pageName returns the name of a command's page: banger-image-pull.
func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// Page returns the page of c in the language of man(7).
func Page(c *cobra.Command, day time.Time) string {
	c.InitDefaultHelpFlag()
	var p page
	p.line(".TH %s 1 %s %s", quoted(strings.ToUpper(pageName(c))), day.UTC().Format(`"2006-01-02"`),
		quoted("banger "+banger.Version))
	p.section("NAME")
	p.line("%s \\- %s", escaped(pageName(c)), escaped(cmp.Or(c.Short, c.Name())))
	p.section("SYNOPSIS")
	p.line(".B %s", escaped(c.UseLine()))
	p.section("DESCRIPTION")
	p.text(strings.TrimSpace(cmp.Or(c.Long, c.Short+".")))
	p.commands(c)
	p.flags("OPTIONS", c.NonInheritedFlags())
	p.flags("OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	if c.Example != "" {
		p.section("EXAMPLES")
		p.text("  " + strings.TrimSpace(c.Example)) // each line stays as it is
	}
	p.seeAlso(c)
	return p.String()
}

// page is a page of man(7) that is being written.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(name string) { p.line(".SH %s", name) }

// text writes paragraphs. Lines that begin with a blank or a tab stay lines of their own.
func (p *page) text(text string) {
	verbatim, apart := false, false // whether the lines before stay as they are, and whether an empty line came before
	for line := range strings.SplitSeq(text, "\n") {
		if strings.TrimSpace(line) == "" {
			apart = true
			continue
		}
		rest := strings.TrimLeft(line, " \t")
		switch indented := rest != line; {
		case indented && !verbatim:
			p.line(".RS\n.nf")
		case !indented && verbatim:
			p.line(".fi\n.RE\n.PP")
		case indented && apart:
			p.line("")
		case apart:
			p.line(".PP")
		}
		verbatim, apart = rest != line, false
		p.line("%s", escaped(rest))
	}
	if verbatim {
		p.line(".fi\n.RE")
	}
}

// commands lists the commands that c has.
func (p *page) commands(c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	p.section("COMMANDS")
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			p.line(".TP\n.BR %s (1)\n%s", escaped(pageName(sub)), escaped(sub.Short))
		}
	}
}

// flags lists the flags of a set.
func (p *page) flags(section string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.section(section)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		if kind, ok := kinds[value]; ok {
			value = kind
		}
		p.line(".TP")
		head := "\\fB" + escaped("--"+f.Name) + "\\fR"
		if f.Shorthand != "" {
			head = "\\fB" + escaped("-"+f.Shorthand) + "\\fR, " + head
		}
		switch {
		case f.Value.Type() != "bool" && f.NoOptDefVal != "":
			head += "[=\\fI" + escaped(value) + "\\fR]"
		case value != "":
			head += " \\fI" + escaped(value) + "\\fR"
		}
		p.line("%s\n%s", head, escaped(usage+byDefault(f)))
	})
}

// kinds are the words for values whose flags say only which type of Go they have.
var kinds = map[string]string{"string": "VALUE", "list": "VALUE", "stringArray": "VALUE", "strings": "VALUE,...",
	"int": "NUMBER"}

// byDefault returns what follows a flag's usage if its default is worth a word.
func byDefault(f *pflag.Flag) string {
	if slices.Contains([]string{"", "false", "[]", "0", "-1"}, f.DefValue) || strings.Contains(f.Usage, "(default:") {
		return ""
	}
	return " (default: " + f.DefValue + ")"
}

// seeAlso names the page of the command above c, and of the commands beside it.
func (p *page) seeAlso(c *cobra.Command) {
	if !c.HasParent() {
		return
	}
	p.section("SEE ALSO")
	p.line(".BR %s (1)", escaped(pageName(c.Parent())))
}

// escaped returns text in which roff finds no command of its own.
func escaped(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// quoted returns text as one argument of a roff command.
func quoted(text string) string { return `"` + strings.ReplaceAll(escaped(text), `"`, `\(dq`) + `"` }
