// Command banger runs OCI images in microVMs of their own: the CLI, the daemon
// and the shim in one binary.
package main

import (
	"context"
	"os"

	"banger/internal/cli"
	"banger/internal/daemon"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Processes{
		Daemon: func(ctx context.Context, o cli.DaemonOptions) error { return daemon.Run(ctx, daemon.Options(o)) },
		Shim:   daemon.RunShim,
		VMM:    daemon.ExecVMM,
	}))
}
