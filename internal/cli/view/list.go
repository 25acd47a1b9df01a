// Package view has the commands that only show VMs: lists, what they use, and everything that is known of one.
//
// It must not know how a VM is made or changed.
package view

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
	"banger/internal/cli/render"
	"banger/internal/text"
)

// listOptions are the flags of ps.
type listOptions struct {
	all, latest, size, whole bool
	last                     int
	filters                  []string
}

// NewList returns the command ps.
func NewList(a *command.App) *cobra.Command {
	o := &listOptions{}
	c := &cobra.Command{
		Use:     "ps",
		Aliases: []string{"ls", "list"},
		Short:   "List VMs",
		Args:    command.Usage(cobra.NoArgs),
	}
	c.Flags().BoolVarP(&o.all, "all", "a", false, "also VMs that do not run")
	c.Flags().StringArrayVarP(&o.filters, "filter", "f", nil, "name=, id=, state=, image= or label=KEY[=VALUE]")
	c.Flags().IntVarP(&o.last, "last", "n", -1, "the VMs that were made last, also those that do not run; -1: no limit")
	c.Flags().BoolVarP(&o.latest, "latest", "l", false, "the VM that was made last, also if it does not run")
	c.Flags().BoolVarP(&o.size, "size", "s", false, "what each VM takes of the disk")
	c.Flags().BoolVar(&o.whole, "no-trunc", false, "whole commands, images, digests and reasons")
	return command.Lists(a, c, command.Listing[banger.VM]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]banger.VM, error) {
			if differs := a.Daemon.Differs(); differs != "" && !a.Quiet {
				render.Line(a.Stderr, "banger: "+differs)
			}
			return o.get(ctx, client)
		},
		Name: func(vm banger.VM) string { return vm.ID },
		Head: []string{"ID", "NAME", "IMAGE", "COMMAND", "STATE", "PORTS", "ISOLATION", "CREATED"},
		More: func() []string {
			if o.size {
				return []string{"SIZE"}
			}
			return nil
		},
		Row: o.row,
		Docker: func(vm banger.VM) map[string]any {
			fields := format.VM(vm)
			if o.size {
				fields["Size"] = banger.FormatSize(vm.DiskUsed)
			}
			if o.whole {
				fields["Command"] = fmt.Sprintf("%q", format.Command(vm))
			}
			return fields
		},
	})
}

// get returns the VMs that the flags ask for, newest first.
func (o *listOptions) get(ctx context.Context, client *client.Client) ([]banger.VM, error) {
	if o.latest {
		o.last = 1
	}
	all := o.all || o.last >= 0
	for _, f := range o.filters { // a filter by state replaces the default of running VMs only
		all = all || strings.HasPrefix(f, "state=") || strings.HasPrefix(f, "status=")
	}
	read := client.List
	if o.size {
		read = client.ListWithSizes
	}
	list, err := read(ctx, all, o.filters)
	if o.last >= 0 {
		list = list[:min(o.last, len(list))]
	}
	return list, err
}

func (o *listOptions) row(vm banger.VM) []string {
	limit := func(s string, max int) string {
		if o.whole {
			return s
		}
		return text.Limit(s, max)
	}
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	cells := []string{vm.ID, vm.Name, limit(vm.Spec.Image, 40), or(limit(format.Command(vm), 24)),
		limit(state(vm), 48) + due(vm.Due, time.Now()), or(limit(format.Ports(vm), 40)),
		vm.Isolation, render.Age(vm.CreatedAt)}
	if o.size {
		cells = append(cells, banger.FormatSize(vm.DiskUsed))
	}
	return cells
}

// due returns what the daemon will do with a VM by itself, in parentheses, or "".
func due(list []banger.Due, now time.Time) string {
	words := map[string]string{banger.ActionStart: "starts again", banger.ActionStop: "stopped",
		banger.ActionSuspend: "suspended", banger.ActionRemove: "removed"}
	idles := map[string]string{banger.ActionStop: "stops", banger.ActionSuspend: "suspends"}
	var parts []string
	for _, d := range list {
		word := words[d.Action]
		if word == "" {
			word = d.Action // of a newer daemon
		}
		if d.Blocked != "" {
			parts = append(parts, "not "+word+": "+text.Limit(d.Blocked, 80))
			continue
		}
		if d.Idle > 0 {
			parts = append(parts, idles[d.Action]+" when idle for "+render.Span(time.Duration(d.Idle)*time.Second))
			continue
		}
		parts = append(parts, text.Limit(word, 20)+" in "+render.Span(max(d.At.Sub(now), 0)))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// restarts returns how often the restart policy has started a VM again, or "".
func restarts(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", 1 restart"
	}
	return fmt.Sprintf(", %d restarts", n)
}

// state returns a VM's state and how long it has been in it.
func state(vm banger.VM) string {
	switch {
	case vm.State == banger.StateRunning && !vm.StartedAt.IsZero():
		return "running, " + render.Since(vm.StartedAt) + restarts(vm.Restarts) + render.Readiness(vm.Readiness)
	case vm.State == banger.StateStopped && vm.ExitCode != nil:
		return fmt.Sprintf("stopped (%d), %s", *vm.ExitCode, render.Age(vm.FinishedAt))
	case vm.State == banger.StateFailed && vm.Reason != "":
		return "failed: " + vm.Reason
	}
	return string(vm.State)
}
