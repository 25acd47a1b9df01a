package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/text"
)

// each runs f for every ref concurrently and prints the results in the order given. A failure for one ref does not
// stop the others.
func (a *app) each(ctx context.Context, refs []string, f func(*api.Client, string) (string, error)) error {
	client, err := a.connect(ctx)
	if err != nil {
		return err
	}
	type result struct {
		line string
		err  error
	}
	results := make([]result, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() { results[i].line, results[i].err = f(client, ref) })
	}
	wg.Wait()
	failed := false
	for _, r := range results {
		if r.err != nil {
			failed = true
			a.complain(r.err)
			continue
		}
		a.say(r.line)
	}
	if failed {
		return &exitError{code: exitFailed}
	}
	return nil
}

// verb returns a command that does one thing to each named VM.
func (a *app) verb(use, short string, f func(context.Context, *api.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " VM...", Short: short, Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(c.Context(), args, func(client *api.Client, ref string) (string, error) { return ref, f(c.Context(), client, ref) })
		},
	}
}

func (a *app) startCommand() *cobra.Command {
	return a.verb("start", "Boot VMs that are stopped", func(ctx context.Context, c *api.Client, ref string) error {
		p := a.progress()
		defer p.close()
		_, err := c.Start(ctx, ref, false, p.emit)
		return err
	})
}

func (a *app) stopCommand() *cobra.Command {
	var seconds int
	c := a.verb("stop", "Shut VMs down cleanly", func(ctx context.Context, c *api.Client, ref string) error {
		_, err := c.Stop(ctx, ref, time.Duration(seconds)*time.Second)
		return err
	})
	c.Flags().IntVarP(&seconds, "time", "t", 10, "seconds that programs get before they are killed")
	return c
}

func (a *app) restartCommand() *cobra.Command {
	var seconds int
	c := a.verb("restart", "Stop VMs and boot them again", func(ctx context.Context, c *api.Client, ref string) error {
		p := a.progress()
		defer p.close()
		_, err := c.Restart(ctx, ref, time.Duration(seconds)*time.Second, p.emit)
		return err
	})
	c.Flags().IntVarP(&seconds, "time", "t", 10, "seconds that programs get before they are killed")
	return c
}

func (a *app) killCommand() *cobra.Command {
	var name string
	c := a.verb("kill", "End VMs at once, or signal their main command", func(ctx context.Context, c *api.Client, ref string) error {
		sig, err := banger.ParseSignal(name)
		if err != nil {
			return err
		}
		_, err = c.Kill(ctx, ref, sig)
		return err
	})
	c.Flags().StringVarP(&name, "signal", "s", "KILL", "signal for the main command; KILL ends the VM")
	return c
}

func (a *app) rmCommand() *cobra.Command {
	var force bool
	c := a.verb("rm", "Remove VMs and their disks", func(ctx context.Context, c *api.Client, ref string) error {
		return c.Remove(ctx, ref, force)
	})
	remove := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		defer a.refreshSSH(c.Context())
		return remove(c, args)
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "kill VMs that run")
	return c
}

func (a *app) waitCommand() *cobra.Command {
	return &cobra.Command{
		Use: "wait VM...", Short: "Wait until VMs have ended and print their exit codes",
		Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(c.Context(), args, func(client *api.Client, ref string) (string, error) {
				vm, err := client.Wait(c.Context(), ref)
				switch {
				case vm.ExitCode != nil:
					return strconv.Itoa(*vm.ExitCode), err
				case vm.State == banger.StateFailed:
					return strconv.Itoa(exitBanger), err
				}
				return "0", err
			})
		},
	}
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rename VM NAME", Short: "Give a VM another name", Args: usage(cobra.ExactArgs(2)), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.Rename(c.Context(), args[0], args[1])
			a.refreshSSH(c.Context())
			return err
		},
	}
}

func (a *app) commitCommand() *cobra.Command {
	var note banger.CommitNote
	var format string
	c := &cobra.Command{
		Use: "commit VM NAME[:TAG]", Short: "Make an image of what a running VM has changed", Args: usage(cobra.ExactArgs(2)),
		ValidArgsFunction: a.completeVMs,
		Long: "Make an image of the VM's own image and one layer with all that was changed since. /etc/hostname, /etc/hosts,\n" +
			"/etc/resolv.conf and what is mounted are left out. The VM goes on running: what is being written may be half there.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withEvents(c, format, func(client *api.Client, emit banger.Emit) error {
				img, err := client.CommitVM(c.Context(), args[0], args[1], note, emit)
				if err == nil {
					a.printImage(img, format)
				}
				return err
			})
		},
	}
	c.Flags().StringVarP(&note.Author, "author", "a", "", "who made it, for the image's history")
	c.Flags().StringVarP(&note.Message, "message", "m", "", "what it is, for the image's history")
	c.Flags().StringVar(&format, "format", "", "json: progress as one JSON event a line, on stdout")
	return c
}

func (a *app) pruneCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "prune", Short: "Remove all VMs that do not run", Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if !force {
				if err := a.confirm("This removes every VM that does not run, with its disk. Go on?", "--force"); err != nil {
					return err
				}
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			removed, err := client.Prune(c.Context())
			a.refreshSSH(c.Context())
			for _, vm := range removed {
				a.say(vm.Name)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return c
}

// confirm asks the user on a terminal. Without a terminal it requires the flag that answers yes.
func (a *app) confirm(question, flag string) error {
	if !isTerminal(a.stdin) || !isTerminal(a.stderr) {
		return banger.Errorf(banger.CodeInvalid, "this needs a yes, and stdin is not a terminal").WithHint("use %s", flag)
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	var answer string
	fmt.Fscanln(a.stdin, &answer)
	if strings.HasPrefix(strings.ToLower(answer), "y") {
		return nil
	}
	return &exitError{exitFailed, errors.New("nothing was removed")}
}

func (a *app) psCommand() *cobra.Command {
	var all bool
	var filters []string
	c := listCommand(a, listing[banger.VM]{
		use: "ps", aliases: []string{"ls", "list"}, short: "List VMs",
		get: func(ctx context.Context, client *api.Client) ([]banger.VM, error) {
			// A filter by state replaces the default of running VMs only.
			for _, f := range filters {
				all = all || strings.HasPrefix(f, "state=") || strings.HasPrefix(f, "status=")
			}
			return client.List(ctx, all, filters)
		},
		name: func(vm banger.VM) string { return vm.ID },
		head: []string{"ID", "NAME", "IMAGE", "COMMAND", "STATE", "ISOLATION", "CREATED"},
		row:  vmRow,
	})
	c.Flags().BoolVarP(&all, "all", "a", false, "also VMs that do not run")
	c.Flags().StringArrayVarP(&filters, "filter", "f", nil, "name=, id=, state=, image= or label=KEY[=VALUE]")
	return c
}

func vmRow(vm banger.VM) []string {
	command := "-"
	if vm.Main != nil {
		command = text.Limit(strings.Join(vm.Main.Args, " "), 24)
	}
	state := string(vm.State)
	if vm.State == banger.StateStopped && vm.ExitCode != nil {
		state = fmt.Sprintf("stopped (%d)", *vm.ExitCode)
	}
	if vm.State == banger.StateFailed && vm.Reason != "" {
		state = text.Limit("failed: "+vm.Reason, 48)
	}
	return []string{vm.ID, vm.Name, text.Limit(vm.Spec.Image, 40), command, state, vm.Isolation, age(vm.CreatedAt)}
}

func (a *app) inspectCommand() *cobra.Command {
	env := false
	c := &cobra.Command{
		Use: "inspect VM...", Short: "Show everything about VMs as JSON", Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			get := client.Get
			if env {
				get = client.GetWithEnv
			}
			return inspectAll(a, args, func(ref string) (banger.VM, error) { return get(c.Context(), ref) })
		},
	}
	c.Flags().BoolVar(&env, "show-env", false, "show the values that -e gave, which are "+banger.HiddenValue+" otherwise")
	return c
}

// inspectAll prints the objects that it finds as one JSON array, and returns errors for the others.
func inspectAll[T any](a *app, refs []string, get func(string) (T, error)) error {
	found := []T{}
	failed := false
	for _, ref := range refs {
		v, err := get(ref)
		if err != nil {
			failed = true
			a.complain(err)
			continue
		}
		found = append(found, v)
	}
	if err := a.printJSON(found); err != nil {
		return err
	}
	if failed {
		return &exitError{code: exitFailed}
	}
	return nil
}

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	var tail string
	c := &cobra.Command{
		Use: "logs [flags] VM", Short: "Show a VM's console", Args: usage(cobra.ExactArgs(1)), ValidArgsFunction: a.completeVMs,
		RunE: func(c *cobra.Command, args []string) error {
			n := -1
			if tail != "all" {
				var err error
				if n, err = strconv.Atoi(tail); err != nil || n < 0 {
					return &exitError{exitUsage, fmt.Errorf("--tail is %q, but must be a number of lines or all", tail)}
				}
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			r, err := client.Logs(c.Context(), args[0], n, follow)
			if err != nil {
				return err
			}
			defer r.Close()
			err = a.copyText(r)
			if c.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	c.Flags().StringVarP(&tail, "tail", "n", "all", "number of lines from the end")
	return c
}

// completeVMs offers the names of existing VMs. It offers nothing when no daemon runs.
func (a *app) completeVMs(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if !a.daemonRuns(ctx) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := a.client.List(ctx, true, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, vm := range list {
		names = append(names, vm.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
