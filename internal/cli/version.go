package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

// versions are those of both programs.
type versions struct {
	Client wire.Version  `json:"client"`
	Daemon *wire.Version `json:"daemon"` // null when no daemon runs
}

func newVersion(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of client and daemon",
		Args:  command.Usage(cobra.NoArgs),
	}
	parsed := command.Formats(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		f, err := parsed()
		if err != nil {
			return err
		}
		v := versions{Client: wire.Version{Version: banger.Version, API: banger.APIVersion}}
		if a.DaemonRuns(c.Context()) {
			d, err := a.Client.Version(c.Context())
			if err != nil {
				return err
			}
			v.Daemon = &d
		}
		switch {
		case f.JSON:
			return render.JSON(a.Stdout, v)
		case f.Template != nil:
			return command.Write(a.App, f, []versions{v}, func(v versions) map[string]any {
				server := map[string]any{"Version": "", "APIVersion": ""}
				if v.Daemon != nil {
					server = map[string]any{"Version": v.Daemon.Version, "APIVersion": v.Daemon.API}
				}
				client := map[string]any{"Version": v.Client.Version, "APIVersion": v.Client.API}
				return map[string]any{"Client": client, "Server": server}
			})
		}
		fmt.Fprintf(a.Stdout, "client: %s (API %d)\n", v.Client.Version, v.Client.API)
		if v.Daemon == nil {
			fmt.Fprintln(a.Stdout, "daemon: not running")
		} else {
			fmt.Fprintf(a.Stdout, "daemon: %s (API %d)\n", v.Daemon.Version, v.Daemon.API)
		}
		return nil
	}
	return c
}
