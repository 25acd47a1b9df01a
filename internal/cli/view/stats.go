package view

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/format"
	"banger/internal/cli/render"
)

// statsPeriod is the time over which the use of CPUs is measured.
const statsPeriod = time.Second

// NewStats returns the command stats.
func NewStats(a *command.App) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:   "stats [VM...]",
		Short: "Show what running VMs use",
		Long: `Show what running VMs, or all of them, use: CPU in percent of one CPU, the host's memory that the VMM
holds, and what went by network and disks since the start. On a terminal it goes on until Ctrl-C.`,
	}
	c.Flags().BoolVar(&once, "no-stream", false, "show them once")
	parsed := command.Formats(c)
	c.RunE = a.WithFormat(parsed, func(ctx context.Context, client *client.Client, f command.Format, refs []string) error {
		return watchStats(ctx, a, client, refs, f, once || !render.IsTerminal(a.Stdout))
	})
	return c
}

// used is what a VM has used, and how much of a CPU it uses now.
type used struct {
	banger.Stats
	CPU float64 `json:"cpu_percent"`
}

// watchStats shows what VMs use, once or until ctx ends. JSON and templates are written once.
func watchStats(ctx context.Context, a *command.App, client *client.Client, refs []string, f command.Format,
	once bool) error {
	formatted := !f.IsText()
	before, err := readStats(ctx, client, refs)
	if err != nil {
		return err
	}
	tick := time.NewTicker(statsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := readStats(ctx, client, refs)
		if err != nil && (once || formatted || ctx.Err() == nil) {
			return err
		}
		list := compareStats(before, now)
		if formatted {
			return command.Write(a, f, list, func(u used) map[string]any { return format.Stats(u.Stats, u.CPU) })
		}
		if once {
			return writeStats(a.Stdout, list)
		}
		var screen bytes.Buffer
		screen.WriteString("\x1b[H\x1b[J") // console_codes(4): home, erase to the end
		writeStats(&screen, list)
		if _, err := a.Stdout.Write(screen.Bytes()); err != nil {
			return err
		}
		before = now
	}
}

// readStats reads the Stats of the named VMs, or of all that run. A VM that was not named may end meanwhile without
// an error.
func readStats(ctx context.Context, client *client.Client, refs []string) ([]banger.Stats, error) {
	named := len(refs) > 0
	if !named {
		vms, err := client.List(ctx, false, nil)
		if err != nil {
			return nil, err
		}
		for _, vm := range vms {
			refs = append(refs, vm.ID)
		}
	}
	list, errs := make([]banger.Stats, len(refs)), make([]error, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() { list[i], errs[i] = client.Stats(ctx, ref) })
	}
	wg.Wait()
	list = slices.DeleteFunc(list, func(s banger.Stats) bool { return s.ID == "" })
	for _, err := range errs {
		if err != nil && (named || len(list) == 0) {
			return nil, err
		}
	}
	return list, nil
}

func compareStats(before, now []banger.Stats) []used {
	list := make([]used, len(now))
	for i, s := range now {
		list[i].Stats = s
		if j := slices.IndexFunc(before, func(b banger.Stats) bool { return b.ID == s.ID }); j >= 0 {
			list[i].CPU = cpuPercent(s, before[j])
		}
	}
	return list
}

func writeStats(w io.Writer, list []used) error {
	t := render.NewTable(w, "ID", "NAME", "CPU", "MEMORY / GUEST'S", "NET IN / OUT", "DISK READ / WRITTEN")
	for _, u := range list {
		pair := func(x, y int64) string { return banger.FormatSize(x) + " / " + banger.FormatSize(y) }
		t.Row(u.ID, u.Name, fmt.Sprintf("%.1f %%", u.CPU), pair(u.Memory, u.MemoryLimit),
			pair(int64(u.NetIn), int64(u.NetOut)), pair(int64(u.DiskRead), int64(u.DiskWritten)))
	}
	return t.Flush()
}

// cpuPercent returns the share of one CPU, in percent, that was used between two readings of one VM. It returns 0 if
// earlier is not an earlier reading of the same run.
func cpuPercent(s, earlier banger.Stats) float64 {
	took := s.At.Sub(earlier.At)
	if took <= 0 || s.CPUTime < earlier.CPUTime { // the VM was restarted between the readings
		return 0
	}
	return 100 * float64(s.CPUTime-earlier.CPUTime) / float64(took)
}
