package view

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
)

// NewTop returns the command top.
func NewTop(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "top VM",
		Short: "List the processes of a VM",
		Args:  command.Usage(cobra.ExactArgs(1)),
		Long: `List the processes of a VM, without the threads of its kernel. The image needs no ps for it. With options
of ps: banger exec VM ps -ef`,
	}
	return command.Lists(a, c, command.Listing[banger.Process]{
		Get: func(ctx context.Context, client *client.Client, args []string) ([]banger.Process, error) {
			return client.Processes(ctx, args[0])
		},
		Name: func(p banger.Process) string { return fmt.Sprint(p.PID) },
		Head: []string{"UID", "PID", "PPID", "STARTED", "TIME", "MEMORY", "COMMAND"},
		Row:  processRow,
	})
}

func processRow(p banger.Process) []string {
	started := p.Started.Local().Format("15:04")
	if time.Since(p.Started) > 24*time.Hour {
		started = p.Started.Local().Format(time.DateOnly)
	}
	seconds := int(p.CPUTime.Seconds())
	used := fmt.Sprintf("%02d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	return []string{fmt.Sprint(p.UID), fmt.Sprint(p.PID), fmt.Sprint(p.Parent), started, used,
		banger.FormatSize(p.Memory), p.Command}
}
