// Package doctor checks what this host can do and says what to mend.
//
// It must not know how the report is printed. It changes nothing, except that a daemon may start.
package doctor

import (
	"context"

	"banger/internal/api/wire"
	"banger/internal/cli/connect"
	"banger/internal/host"
	"banger/internal/report"
)

// Diagnose checks this host and the daemon, which it starts if necessary. stateDir is the state directory.
func Diagnose(ctx context.Context, daemon *connect.Daemon, stateDir string) []wire.Check {
	ctx, cancel := context.WithTimeout(ctx, connect.StartTime)
	defer cancel()
	client, failed := daemon.Connect(ctx)
	fix := "see " + daemon.LogPath()
	var version wire.Version
	if failed == nil {
		version, failed = client.Version(ctx)
		fix = "restart it: banger daemon stop"
	}
	checks := report.Host(host.ProbeKVM(""), stateDir, version.VMMs)
	if failed != nil {
		return append(checks, wire.Check{Name: "daemon", Result: wire.Fail, Detail: failed.Error(), Fix: fix})
	}
	of := report.Daemon(ctx, version)
	if differs := connect.Differs(version.Version); differs != "" {
		of[0] = wire.Check{Name: "daemon", Result: wire.Warn, Detail: differs, Fix: connect.Restart}
	}
	kernels, err := client.Kernels(ctx)
	return append(append(checks, of...), report.Kernels(kernels, err))
}
