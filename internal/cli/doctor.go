package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/cli/doctor"
	"banger/internal/text"
)

func newDoctor(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this host can do and say what to mend",
		Args:  command.Usage(cobra.NoArgs),
	}
	parsed := command.Formats(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		f, err := parsed()
		if err != nil {
			return err
		}
		checks := doctor.Diagnose(c.Context(), a.Daemon, a.Paths.State)
		if !f.IsText() {
			err = command.Write(a.App, f, checks, nil)
		} else {
			printChecks(a.Stdout, checks)
		}
		for _, k := range checks {
			if k.Result == wire.Fail && err == nil {
				err = &command.ExitError{Code: command.ExitFailed}
			}
		}
		return err
	}
	return c
}

func printChecks(w io.Writer, checks []wire.Check) {
	for _, k := range checks {
		fmt.Fprintf(w, "%-4s  %-10s %s\n", k.Result, k.Name, text.Line(k.Detail))
		if k.Fix != "" {
			fmt.Fprintf(w, "      %-10s fix: %s\n", "", text.Line(k.Fix))
		}
	}
}
