package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/spec"
)

func newPolicy(a *app) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "What a VM may reach, and what it was refused"}
	c.AddCommand(newPolicyShow(a), newPolicySet(a), newPolicyLog(a))
	return c
}

func newPolicyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show VM",
		Short: "Print a VM's policy as policy set reads it",
		Args:  command.Usage(cobra.ExactArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			vm, err := client.Get(ctx, args[0])
			if err != nil {
				return err
			}
			if vm.Spec.Policy == nil {
				return banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name)
			}
			fmt.Fprint(a.Stdout, vm.Spec.Policy)
			return nil
		}),
	}
}

func newPolicySet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "set VM allow|deny|FILE|-",
		Short: "Replace a VM's policy; flows that it forbids are cut",
		Args:  command.Usage(cobra.ExactArgs(2)),
		Long: `Replace what a VM may reach, now and at its next starts. Flows that the policy forbids are cut before
the command ends.

A policy is allow, deny, or a file of lines; the first rule that matches decides:
  ACTION DESTINATION [PROTOCOL[:PORTS]]    ACTION is allow or deny
  default allow|deny                       else, and without it deny
DESTINATION is a host name, *.domain for all names below one, an address, a network like 10.1.0.0/16, any,
private (the local networks), or host (services on this host's 127.0.0.1, which the VM finds at 10.0.2.2).
Private, link-local and metadata addresses and those of the host are denied unless a rule names them.`,
		Example: `  printf 'allow *.debian.org tcp:80,443\nallow 192.168.1.7 tcp:5432\n' | banger policy set box -`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := spec.Policy(args[1], a.Stdin)
			if err != nil {
				return err
			}
			client, err := a.Connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.SetPolicy(c.Context(), args[0], p)
			return err
		},
	}
}

func newPolicyLog(a *app) *cobra.Command {
	var follow bool
	var tail int
	c := &cobra.Command{
		Use:   "log [flags] VM",
		Short: "Show what a VM's policy has refused since its last start",
		Args:  command.Usage(cobra.ExactArgs(1)),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	c.Flags().IntVarP(&tail, "tail", "n", -1, "number of lines from the end (-1: all that are kept)")
	wantsJSON := command.TableOrJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		json, err := wantsJSON()
		if err != nil {
			return err
		}
		client, err := a.Connect(c.Context())
		if err != nil {
			return err
		}
		vm, err := client.Get(c.Context(), args[0])
		if err != nil {
			return err
		}
		return client.Denials(c.Context(), args[0], tail, follow, func(d banger.Denial) {
			if json {
				render.JSON(a.Stdout, d)
				return
			}
			a.Say(denialLine(vm.Name, d))
		})
	}
	return c
}

// denialLine returns one denial as a line for a person: time, VM, process, destination, reason.
func denialLine(vm string, d banger.Denial) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", d.Time.Local().Format(time.DateTime), vm)
	if d.PID != 0 {
		fmt.Fprintf(&b, " (%s, pid %d)", d.Process, d.PID)
	}
	fmt.Fprintf(&b, ": %s", d.Protocol)
	if d.Name != "" {
		fmt.Fprintf(&b, " %s", d.Name)
	}
	if d.Address != "" {
		fmt.Fprintf(&b, " %s", d.Address)
		if d.Port != 0 {
			fmt.Fprintf(&b, ":%d", d.Port)
		}
	}
	fmt.Fprintf(&b, " denied by %q", d.Rule)
	if d.Count > 1 {
		fmt.Fprintf(&b, ", %d times", d.Count)
	}
	return b.String()
}
