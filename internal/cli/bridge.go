package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
)

func (a *app) networkCommand() *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Networks of VMs that see each other (bridges of the host, for root)"}
	var subnet string
	create := &cobra.Command{
		Use: "create [flags] NAME", Short: "Make a network, for run --network NAME", Args: usage(cobra.ExactArgs(1)),
		Long: `Make a network whose VMs see each other and know each other as VM, VM.vm and VM.NETWORK.vm. It needs a daemon of
root. Nothing of it is on the host while no VM runs on it. What its VMs may reach outside is their policy's matter.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := (banger.Network{Name: args[0], Subnet: subnet}).Check(); err != nil {
				return err
			}
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			n, err := client.CreateNetwork(c.Context(), args[0], subnet)
			if err == nil {
				a.say(n.Name)
			}
			return err
		},
	}
	create.Flags().StringVar(&subnet, "subnet", "", "its addresses, like 172.30.7.0/24 (default: some that are free)")
	c.AddCommand(create, a.networkListCommand(), &cobra.Command{
		Use: "inspect NETWORK...", Short: "Show networks as JSON", Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: a.completeNetworks,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			return inspectAll(a, args, func(name string) (banger.Network, error) { return client.Network(c.Context(), name) })
		},
	}, &cobra.Command{
		Use: "rm NETWORK...", Short: "Remove networks that no VM uses", Args: usage(cobra.MinimumNArgs(1)), ValidArgsFunction: a.completeNetworks,
		RunE: func(c *cobra.Command, args []string) error {
			return a.each(c.Context(), args, func(client *api.Client, name string) (string, error) {
				return name, client.RemoveNetwork(c.Context(), name)
			})
		},
	}, &cobra.Command{
		Use: "connect NETWORK VM", Short: "Give a stopped VM another network", Args: usage(cobra.ExactArgs(2)),
		ValidArgsFunction: a.completeNetworks,
		Long:              "Give a stopped VM another network: one of network ls, or user, bridge or none. A VM has one network.",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			_, err = client.ConnectNetwork(c.Context(), args[1], args[0])
			return err
		},
	})
	return c
}

func (a *app) networkListCommand() *cobra.Command {
	return listCommand(a, listing[banger.Network]{
		use: "ls", aliases: []string{"list"}, short: "List networks",
		get:  func(ctx context.Context, client *api.Client) ([]banger.Network, error) { return client.Networks(ctx) },
		name: func(n banger.Network) string { return n.Name },
		head: []string{"NAME", "SUBNET", "VMS SEE EACH OTHER", "VMS"},
		row: func(n banger.Network) []string {
			see := "yes"
			if n.Isolated {
				see = "no"
			}
			return []string{n.Name, n.Subnet, see, strconv.Itoa(len(n.VMs))}
		},
	})
}

func (a *app) completeNetworks(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var names []string
	if a.daemonRuns(ctx) {
		list, _ := a.client.Networks(ctx) // completion ignores an error and then offers no names
		for _, n := range list {
			names = append(names, n.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
