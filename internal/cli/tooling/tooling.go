// Package tooling has the command that shows which tools the files of a repository ask for.
//
// It must not know how a plan is made, nor how tools are installed.
package tooling

import (
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/cli/command"
	"banger/internal/cli/config"
	"banger/internal/cli/render"
	"banger/internal/text"
	"banger/internal/tooling"
)

// New returns the family of commands for the tools of repositories.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{Use: "tooling", Short: "Show which tools a repository asks for"}
	c.AddCommand(newPlan(a))
	return c
}

func newPlan(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "plan [PATH]",
		Short: "Show the tools, their versions, and the files that ask for them",
		Long: `Show which tools, in which versions, the files in the root of a repository ask for.
A banger.toml that you have allowed counts first, then mise.toml, then .tool-versions,
then the files of the tools themselves, such as go.mod and .nvmrc; among these,
an exact version counts before a range.
Files that contradict each other are named on stderr. Nothing is installed.`,
		Args: command.Usage(cobra.MaximumNArgs(1)),
	}
	asJSON := command.TableOrJSON(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		json, err := asJSON()
		if err != nil {
			return err
		}
		path := "."
		if len(args) == 1 {
			path = args[0]
		}
		plan, err := tooling.Read(path)
		if err != nil {
			return err
		}
		if project, err := config.Obeyed(a, plan.Root); err != nil {
			plan.Notes = append(plan.Notes, err.Error())
		} else if project != nil {
			project.Pin(&plan)
		}
		if json {
			return render.JSON(a.Stdout, plan)
		}
		return show(a, plan)
	}
	return c
}

// show prints a plan as a table, and what is wrong with it on stderr.
func show(a *command.App, plan tooling.Plan) error {
	if a.Quiet {
		for _, tool := range plan.Tools {
			a.Say(tool.Name)
		}
		return nil
	}
	t := render.NewTable(a.Stdout, "TOOL", "VERSION", "FROM")
	for _, tool := range plan.Tools {
		version := tool.Version
		if version == "" {
			version = "?"
		}
		from := tool.Source.String()
		if tool.Asked != tool.Version {
			from = fmt.Sprintf("%s (%s)", from, text.Limit(tool.Asked, 40))
		}
		t.Row(tool.Name, version, from)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range plan.Conflicts {
		render.Line(a.Stderr, "banger: "+c.String())
	}
	for _, note := range plan.Notes {
		render.Line(a.Stderr, "banger: "+note)
	}
	return nil
}
