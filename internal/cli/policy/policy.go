// Package policy has the commands for what VMs may reach. It must not know how a policy is enforced.
package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/spec"
	"banger/internal/notation"
)

// New returns the command policy with its commands.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "What a VM may reach, and what it was refused"}
	c.AddCommand(newShow(a), newSet(a), newAllow(a), newLog(a))
	return c
}

func newShow(a *command.App) *cobra.Command {
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
				return noNetwork(vm)
			}
			fmt.Fprint(a.Stdout, vm.Spec.Policy)
			return nil
		}),
	}
}

func newSet(a *command.App) *cobra.Command {
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

func newAllow(a *command.App) *cobra.Command {
	var span string
	c := &cobra.Command{
		Use:   "allow [flags] VM DESTINATION [PROTOCOL[:PORTS]]",
		Short: "Allow one thing more to a VM, for good or for a time",
		Args:  command.Usage(cobra.RangeArgs(2, 3)),
		Long: `Write a rule in front of a VM's policy, as policy set describes rules. With --for, the rule only counts for a
time: it is not written down, ends with the VM's present run, and connections that it has allowed go on after it.`,
		Example: `  banger policy allow box '*.debian.org' tcp:80,443
  banger policy allow box host tcp:8080 --for 5m`,
	}
	c.Flags().StringVar(&span, "for", "", "allow it for this time, from 1s to 1h, instead of for good")
	c.RunE = a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
		r, err := notation.ParseRule(banger.Allow + " " + strings.Join(args[1:], " "))
		if err != nil {
			return banger.Errorf(banger.CodeInvalid, "cannot read the rule: %w", err).
				WithHint("for example: banger policy allow %s '*.debian.org' tcp:80,443", args[0])
		}
		if !c.Flags().Changed("for") {
			return prepend(ctx, client, args[0], r)
		}
		d, err := time.ParseDuration(span)
		if err != nil || d < time.Second || d > time.Hour || d%time.Second != 0 {
			return command.UsageErrorf("--for is %q, but must be a time of whole seconds from 1s to 1h, such as 5m", span)
		}
		return client.AllowOnce(ctx, args[0], r, int(d/time.Second))
	})
	return c
}

// prepend writes a rule in front of a VM's policy, and removes it from elsewhere in the policy.
func prepend(ctx context.Context, client *client.Client, ref string, r banger.Rule) error {
	vm, err := client.Get(ctx, ref)
	if err != nil {
		return err
	}
	if vm.Spec.Policy == nil {
		return noNetwork(vm)
	}
	p := *vm.Spec.Policy
	others := slices.DeleteFunc(slices.Clone(p.Rules), func(o banger.Rule) bool { return o.String() == r.String() })
	p.Rules = append([]banger.Rule{r}, others...)
	_, err = client.SetPolicy(ctx, vm.ID, p)
	return err
}

func noNetwork(vm banger.VM) error {
	return banger.Errorf(banger.CodeConflict, "VM %s has no network", vm.Name)
}

func newLog(a *command.App) *cobra.Command {
	var follow, all bool
	var tail int
	c := &cobra.Command{
		Use:   "log [flags] VM",
		Short: "Show what a VM's policy has refused since its last start",
		Args:  command.Usage(cobra.ExactArgs(1)),
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "show also the connections that it has allowed (not on a bridge network)")
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
		log := client.Denials
		if all {
			log = client.Decisions
		}
		return log(c.Context(), args[0], tail, follow, func(d banger.Decision) {
			if json {
				render.JSON(a.Stdout, d)
				return
			}
			a.Say(lineOf(vm.Name, d))
		})
	}
	return c
}

// lineOf returns one decision as a line for a person: time, VM, process, destination, reason.
func lineOf(vm string, d banger.Decision) string {
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
	verdict := "denied"
	if d.Allowed {
		verdict = "allowed"
	}
	fmt.Fprintf(&b, " %s by %q", verdict, d.Rule)
	if d.Count > 1 {
		fmt.Fprintf(&b, ", %d times", d.Count)
	}
	return b.String()
}
