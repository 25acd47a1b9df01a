package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
)

func newVersion(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of client and daemon",
		Args:  command.Usage(cobra.NoArgs),
	}
	wantsJSON := command.TableOrJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		json, err := wantsJSON()
		if err != nil {
			return err
		}
		v := struct {
			Client api.Version  `json:"client"`
			Daemon *api.Version `json:"daemon"` // null when no daemon runs
		}{Client: api.Version{Version: banger.Version, API: banger.APIVersion}}
		if a.DaemonRuns(c.Context()) {
			d, err := a.Client.Version(c.Context())
			if err != nil {
				return err
			}
			v.Daemon = &d
		}
		if json {
			return render.JSON(a.Stdout, v)
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
