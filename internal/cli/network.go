package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
)

func newNetwork(a *app) *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Networks of VMs that see each other (bridges of the host, for root)"}
	inspect := &cobra.Command{
		Use:   "inspect NETWORK...",
		Short: "Show networks as JSON",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	remove := &cobra.Command{
		Use:   "rm NETWORK...",
		Short: "Remove networks that no VM uses",
		Args:  command.Usage(cobra.MinimumNArgs(1)),
	}
	connect := &cobra.Command{
		Use:   "connect NETWORK VM",
		Short: "Give a stopped VM another network",
		Args:  command.Usage(cobra.ExactArgs(2)),
		Long: "Give a stopped VM another network: one of network ls, or user, bridge or none. " +
			"A VM has one network.",
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			_, err := client.ConnectNetwork(ctx, args[1], args[0])
			return err
		}),
	}
	disconnect := &cobra.Command{
		Use:   "disconnect NETWORK VM",
		Short: "Take a stopped VM off its network",
		Args:  command.Usage(cobra.ExactArgs(2)),
		Long: "Take a stopped VM off its network. It has none then; its ports and its policy wait until network " +
			"connect gives it another.",
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			vm, err := client.Get(ctx, args[1])
			if err == nil && vm.Spec.Network != args[0] {
				err = banger.Errorf(banger.CodeConflict, "VM %s is on network %s, not on %.100q", vm.Name, vm.Spec.Network,
					args[0]).WithHint("see: banger inspect %s", vm.Name)
			}
			if err == nil {
				_, err = client.ConnectNetwork(ctx, vm.ID, banger.NetworkNone)
			}
			return err
		}),
	}
	c.AddCommand(newNetworkCreate(a), newNetworkList(a), disconnect,
		command.Inspects(a.App, inspect, format.InspectNetwork,
			func(ctx context.Context, client *client.Client, name string) (banger.Network, error) {
				return client.Network(ctx, name)
			}),
		command.Removes(a.App, remove, func(ctx context.Context, client *client.Client, name string) error {
			return client.RemoveNetwork(ctx, name)
		}),
		connect)
	return c
}

func newNetworkCreate(a *app) *cobra.Command {
	var subnet string
	c := &cobra.Command{
		Use:   "create [flags] NAME",
		Short: "Make a network, for run --network NAME",
		Args:  command.Usage(cobra.ExactArgs(1)),
		Long: `Make a network whose VMs see each other and know each other as VM, VM.vm and VM.NETWORK.vm. It needs a
daemon of root. Nothing of it is on the host while no VM runs on it. What its VMs may reach outside is their
policy's matter.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := (banger.Network{Name: args[0], Subnet: subnet}).Check(); err != nil {
				return err
			}
			client, err := a.Connect(c.Context())
			if err != nil {
				return err
			}
			n, err := client.CreateNetwork(c.Context(), args[0], subnet)
			if err == nil {
				a.Say(n.Name)
			}
			return err
		},
	}
	c.Flags().StringVar(&subnet, "subnet", "", "its addresses, like 172.30.7.0/24 (default: some that are free)")
	return c
}

func newNetworkList(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List networks",
		Args:    command.Usage(cobra.NoArgs),
	}
	return command.Lists(a.App, c, command.Listing[banger.Network]{
		Get: func(ctx context.Context, client *client.Client, _ []string) ([]banger.Network, error) {
			return client.Networks(ctx)
		},
		Name: func(n banger.Network) string { return n.Name },
		Head: []string{"NAME", "SUBNET", "VMS SEE EACH OTHER", "VMS"},
		Row: func(n banger.Network) []string {
			see := "yes"
			if n.Isolated {
				see = "no"
			}
			return []string{n.Name, n.Subnet, see, strconv.Itoa(len(n.VMs))}
		},
		Docker: format.Network,
	})
}
