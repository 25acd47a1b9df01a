// Package secret has the commands for the secrets of VMs, and gives VMs what other commands want there. It must not
// know where a secret is kept.
package secret

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/spec"
)

// Give gives a VM what a command wants of secrets. Nothing is given if the VM lacks one of those that it should have.
func Give(ctx context.Context, c *client.Client, vm string, g spec.Given) error {
	if len(g.Kept) > 0 {
		list, err := c.Secrets(ctx, vm)
		if err != nil {
			return err
		}
		for _, name := range g.Kept {
			if !slices.ContainsFunc(list, func(s banger.VMSecret) bool { return s.Name == name && !s.Given.IsZero() }) {
				return banger.Errorf(banger.CodeInvalid, "neither this shell has a variable %s nor VM %s such a secret", name, vm).
					WithHint("set and export it, or name a file: %s=file:PATH", name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.Values)) {
		if err := c.SetSecret(ctx, vm, name, g.Values[name]); err != nil {
			return err
		}
	}
	return nil
}

// New returns the command secret with its commands.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "secret",
		Short: "Give VMs keys that no disk ever has",
		Long: `Give VMs keys that no disk ever has. A VM finds each as a file below ` + banger.SecretsDir + `, which is in its
memory and belongs to the user of its main command. This host keeps the value in a file of its runtime directory, until
the VM is removed or this host boots. A VM with secrets is not suspended, forked or snapshotted without
--with-secrets.`,
		Example: `  banger secret set web TOKEN                      # the variable TOKEN of this shell
  banger secret set web KEY=file:key.pem
  banger exec --secret-env TOKEN web -- ./deploy
  banger secret rm web TOKEN KEY`,
	}
	c.AddCommand(newSet(a), newList(a), newRemove(a))
	return c
}

func newSet(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "set VM SECRET...",
		Short: "Give a VM secrets: NAME, NAME=env:VARIABLE or NAME=file:PATH",
		Long: `Give a VM secrets, in place of earlier ones of their names. NAME alone means the variable NAME of this shell,
and file:- what stdin has. A VM that runs has the files at once; one that is stopped has them from its next start on.`,
		Args: command.Usage(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			given, err := spec.Secrets{Files: args[1:]}.Read(a.Stdin, false)
			if err != nil {
				return err
			}
			client, err := a.Connect(c.Context())
			if err != nil {
				return err
			}
			return Give(c.Context(), client, args[0], given)
		},
	}
}

func newList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls VM",
		Aliases: []string{"list"},
		Short:   "List the secrets of a VM, without their values",
		Args:    command.Usage(cobra.ExactArgs(1)),
	}
	return command.Lists(a, c, command.Listing[banger.VMSecret]{
		Get: func(ctx context.Context, client *client.Client, args []string) ([]banger.VMSecret, error) {
			return client.Secrets(ctx, args[0])
		},
		Name: func(s banger.VMSecret) string { return s.Name },
		Head: []string{"NAME", "GIVEN"},
		Row: func(s banger.VMSecret) []string {
			if s.Given.IsZero() {
				return []string{s.Name, "lost: this host has it no longer; give it again"}
			}
			return []string{s.Name, render.Age(s.Given)}
		},
	})
}

func newRemove(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:     "rm VM SECRET...",
		Aliases: []string{"remove"},
		Short:   "Take secrets from a VM; programs that run keep what they have read",
		Args:    command.Usage(cobra.MinimumNArgs(2)),
		RunE: a.WithClient(func(ctx context.Context, client *client.Client, args []string) error {
			return a.Each(args[1:], func(_ int, name string) (string, error) {
				if err := banger.CheckSecrets(name); err != nil {
					return "", err
				}
				return name, client.RemoveSecret(ctx, args[0], name)
			})
		}),
	}
}
