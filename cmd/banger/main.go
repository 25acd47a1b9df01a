// Command banger runs OCI images in microVMs of their own: the CLI, the daemon
// and the shim in one binary.
package main

import (
	"context"
	"io"
	"os"

	"banger/internal/cli"
	"banger/internal/daemon"
)

func main() {
	os.Exit(cli.Main(cli.Arguments(os.Args), cli.Processes{
		Daemon: func(ctx context.Context, o cli.DaemonOptions) error { return daemon.Run(ctx, daemon.Options(o)) },
		Recover: func(ctx context.Context, o cli.DaemonOptions, w io.Writer) error {
			return daemon.Recover(ctx, daemon.Options(o), w)
		},
		Shim: daemon.RunShim,
		VMM:  daemon.ExecVMM,
		UI:   daemon.RunUI,
	}))
}
