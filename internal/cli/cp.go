package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"banger/internal/cli/command"
	"banger/internal/cli/filecopy"
	"banger/internal/cli/render"
)

func newCopy(a *app) *cobra.Command {
	cp := filecopy.Copy{Patience: filecopy.Patience}
	c := &cobra.Command{
		Use:   "cp [flags] SRC VM:DST | VM:SRC DST",
		Short: "Copy files between here and a VM",
		Args:  command.Usage(cobra.ExactArgs(2)),
		Long: `Copy a file or tree into a running VM or out of it. The image needs no program for it.

DST follows docker's rules: an existing directory takes SRC into it, SRC/. stands for the content of a
directory, a missing last part becomes SRC's new name, and a missing parent is an error. "-" is a tar on stdin
or stdout. A local path with a colon is written ./a:b.

Modes, times, links, holes and extended attributes are kept. Owners are kept with --archive; without it files
become root's in a VM, and yours here. What comes out of a VM has setuid, setgid and capabilities only with
--archive. A tar on stdout is what the VM sends, unchecked.`,
		Example: `  banger cp notes.txt box:/root/
  banger cp box:/var/log/. logs
  tar c . | banger cp - box:/srv
  banger cp box:/etc - | tar t`,
		RunE: func(c *cobra.Command, args []string) error { return runCopy(c.Context(), a, cp, args[0], args[1]) },
	}
	c.Flags().BoolVarP(&cp.Archive, "archive", "a", false,
		"keep uid and gid, and out of a VM setuid, setgid and capabilities; as root also device nodes and fifos")
	c.Flags().BoolVarP(&cp.Follow, "follow-link", "L", false, "copy what the symlink SRC leads to")
	c.Flags().BoolVar(&cp.NoXattrs, "no-xattrs", false, "do not keep extended attributes")
	return c
}

func runCopy(ctx context.Context, a *app, cp filecopy.Copy, src, dst string) error {
	places, err := filecopy.ParsePlaces(src, dst, render.IsTerminal(a.Stdin), render.IsTerminal(a.Stdout))
	if err != nil {
		return &command.ExitError{Code: command.ExitUsage, Err: err}
	}
	if err := places.Check(); err != nil {
		return err
	}
	if cp.Client, err = a.Connect(ctx); err != nil {
		return err
	}
	cp.Stdin, cp.Stdout, cp.Progress = a.Stdin, a.Stdout, a.Progress()
	report, err := cp.Run(ctx, places)
	if lost := filecopy.Lost(report); lost != "" {
		fmt.Fprintln(a.Stderr, "banger:", lost)
	}
	return err
}
