package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/notation"
)

func newPorts(a *app) *cobra.Command {
	probe := false
	c := &cobra.Command{
		Use:   "ports VM",
		Short: "Show what listens in a VM and where it is reached",
		Args:  command.Usage(cobra.ExactArgs(1)),
	}
	c.Flags().BoolVar(&probe, "probe", false, "send each service a request, and show the URLs of those that speak HTTP")
	return command.Lists(a.App, c, command.Listing[banger.Listener]{
		Get: func(ctx context.Context, client *client.Client, args []string) ([]banger.Listener, error) {
			return client.Ports(ctx, args[0], probe)
		},
		Name: func(l banger.Listener) string { return fmt.Sprintf("%d/%s", l.Port, l.Protocol) },
		Head: []string{"PORT", "LISTENS ON", "PROCESS", "REACHABLE AT", "URL"},
		Row:  listenerRow,
	})
}

func listenerRow(l banger.Listener) []string {
	process, reachable, url := "-", "-", "-"
	if l.PID != 0 {
		process = fmt.Sprintf("%s (%d)", l.Process, l.PID)
	}
	switch {
	case len(l.Reachable) > 0:
		reachable = strings.Join(l.Reachable, ", ")
	case l.Problem != "":
		reachable = "no: " + l.Problem
	}
	if l.URL != "" {
		url = l.URL
	}
	return []string{fmt.Sprintf("%d/%s", l.Port, l.Protocol), l.Address, process, reachable, url}
}

func newPort(a *app) *cobra.Command {
	list := a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
		return listForwards(ctx, a, client, args[0])
	})
	c := &cobra.Command{
		Use:   "port VM",
		Short: "Forward ports of the host to a VM",
		Args:  command.Usage(cobra.ExactArgs(1)),
		RunE:  list,
	}
	c.AddCommand(&cobra.Command{
		Use:   "ls VM",
		Short: "List a VM's forwards",
		Args:  command.Usage(cobra.ExactArgs(1)),
		RunE:  list,
	}, &cobra.Command{
		Use:   "add VM [IP:]HOST:GUEST[/udp]...",
		Short: "Add forwards, for good",
		Args:  command.Usage(cobra.MinimumNArgs(2)),
		RunE: a.eachForward(func(ctx context.Context, client *client.Client, vm string, f banger.Forward) error {
			f, err := client.AddForward(ctx, vm, f)
			if err == nil {
				a.Say(forwardLine(f))
			}
			return err
		}),
	}, &cobra.Command{
		Use:   "rm VM [IP:]HOST:GUEST[/udp]...",
		Short: "End forwards and their connections",
		Args:  command.Usage(cobra.MinimumNArgs(2)),
		RunE: a.eachForward(func(ctx context.Context, client *client.Client, vm string, f banger.Forward) error {
			return client.RemoveForward(ctx, vm, f)
		}),
	})
	return c
}

// eachForward returns a command.RunFunc that parses all forwards before it calls do for the first of them.
func (a *app) eachForward(
	do func(ctx context.Context, client *client.Client, vm string, f banger.Forward) error) command.RunFunc {
	return func(c *cobra.Command, args []string) error {
		var list []banger.Forward
		for _, text := range args[1:] {
			forwards, err := notation.ParseForwards(text)
			if err != nil {
				return err
			}
			list = append(list, forwards...)
		}
		client, err := a.Connect(c.Context())
		if err != nil {
			return err
		}
		for _, f := range list {
			if err := do(c.Context(), client, args[0], f); err != nil {
				return err
			}
		}
		return nil
	}
}

func listForwards(ctx context.Context, a *app, client *client.Client, ref string) error {
	vm, err := client.Get(ctx, ref)
	if err != nil {
		return err
	}
	list := vm.Forwards
	if vm.State.AtRest() {
		list = vm.Spec.Forwards
	}
	for _, f := range list {
		a.Say(forwardLine(f))
	}
	return nil
}

// forwardLine returns f in the format of a line of docker port.
func forwardLine(f banger.Forward) string {
	return fmt.Sprintf("%d/%s -> %s", f.GuestPort, f.Protocol, f.Host())
}
