package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
	"banger/internal/cli/library"
	"banger/internal/text"
)

// dockerNames are the commands that docker has at the top level, and where they are here.
var dockerNames = []struct{ name, family, command string }{
	{"images", "image", "ls"},
	{"pull", "image", "pull"},
	{"push", "image", "push"},
	{"rmi", "image", "rm"},
	{"tag", "image", "tag"},
	{"save", "image", "save"},
	{"load", "image", "load"},
	{"history", "image", "history"},
	{"info", "daemon", "status"},
}

// newDockerNames returns the commands of dockerNames.
func newDockerNames(a *app) (list []*cobra.Command) {
	families := map[string]*cobra.Command{"image": library.NewImage(a.App), "daemon": newDaemon(a)}
	for _, n := range dockerNames {
		family := families[n.family]
		for _, c := range family.Commands() {
			if c.Name() != n.command {
				continue
			}
			family.RemoveCommand(c)
			c.Use = n.name + strings.TrimPrefix(c.Use, n.command)
			c.Aliases = nil
			c.Long = c.Short + ". The same as: banger " + n.family + " " + n.command
			list = append(list, c)
		}
	}
	return list
}

// newEvents prints what happens to VMs, as docker's command of this name.
func newEvents(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what happens to VMs, until Ctrl-C",
		Args:  command.Usage(cobra.NoArgs),
	}
	since := c.Flags().String("since", "", "the cursor of the last event that is known; each JSON event has one")
	once := c.Flags().Bool("no-stream", false, "end at the present state")
	parsed := command.Formats(c)
	c.Flags().Lookup("format").Usage = "json: an object per line, the whole state first; or a template: '{{.name}}'"
	c.RunE = a.WithFormat(parsed, func(ctx context.Context, client *client.Client, f command.Format, _ []string) error {
		if f.JSON {
			tell := func(e banger.Change) { text.WriteJSON(a.Stdout, e, "") }
			return client.Events(ctx, *since, !*once, tell)
		}
		lines := command.Changes[banger.VM]{App: a.App, Format: f, Docker: format.VM,
			Line: func(vm banger.VM) (key, words string) { return vm.ID, vm.Name + " " + string(vm.State) }}
		return lines.Follow(ctx, func(ctx context.Context, show func(banger.VM), gone func(string)) error {
			return client.Events(ctx, *since, !*once, func(e banger.Change) {
				for _, vm := range e.VMs {
					show(vm)
				}
				if e.VM != nil {
					show(*e.VM)
				}
				if e.Removed != "" {
					gone(e.Removed)
				}
			})
		})
	})
	return c
}

// newHelp replaces cobra's command, which calls a word that it does not know no error.
func newHelp(*app) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, _, err := c.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range at.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			at, left, err := c.Root().Find(args)
			if err != nil || len(left) > 0 {
				return command.Unknown(at, append(left, args...)[0])
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}

// missing are docker's commands that are not here, and what to do instead.
var missing = []struct{ name, instead string }{
	{"build", "build with docker or podman, and fetch the result: banger image pull docker-daemon:NAME, or podman:NAME"},
	{"compose", "start each VM by its own banger run, on one network: banger network create NAME"},
	{"export", "copy the root: banger cp VM:/ - > root.tar"},
	{"import", "make an OCI layout of it, and fetch that: banger image pull oci:DIR"},
	{"search", "search in the registry's own page"},
	{"swarm", "banger runs VMs on one host"},
	{"volume", "a VM's disk is its own and stays with it; copy files: banger cp"},
}

// newMissing returns hidden commands that say what to do instead.
func newMissing(*app) (list []*cobra.Command) {
	for _, m := range missing {
		list = append(list, &cobra.Command{
			Use:                m.name,
			Short:              "Not here; " + m.instead,
			Hidden:             true,
			DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return banger.Errorf(banger.CodeNotBuilt, "banger has no command %q", m.name).WithHint("%s", m.instead)
			},
		})
	}
	return list
}
