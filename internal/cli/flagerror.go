package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger/internal/cli/command"
	"banger/internal/cli/spec"
)

// flagError returns the error of a flag in plain words, with the exit code of the command. The library's own words have
// the names of Go's functions in them.
func flagError(c *cobra.Command, err error) error {
	code := command.ExitUsage
	if name := c.Name(); name == "run" || name == "exec" { // 2 could be the exit code of the command in the VM
		code = exitBanger
	}
	return &command.ExitError{Code: code, Err: fmt.Errorf("%w (see: %s --help)", plainFlagError(c, err), c.CommandPath())}
}

func plainFlagError(c *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		what := e.GetFlag().Value.Type()
		if words, ok := flagTypes[what]; ok {
			return fmt.Errorf("--%s is %q, but must be %s", e.GetFlag().Name, e.GetValue(), words)
		}
		return fmt.Errorf("--%s: %w", e.GetFlag().Name, e.Unwrap())
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return fmt.Errorf("--%s needs a value", e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && isRun(c) {
		if why := spec.LaterFlag(e.GetSpecifiedName()); why != "" {
			return fmt.Errorf("there is no flag %s: %s", dashed(e.GetSpecifiedName()), why)
		}
	}
	return errors.New(strings.TrimSpace(err.Error()))
}

// isRun reports whether c makes a VM.
func isRun(c *cobra.Command) bool { return c.Name() == "run" || c.Name() == "create" }

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// flagTypes says in words what values of each of pflag's types are.
var flagTypes = map[string]string{
	"bool":     "true or false",
	"int":      "a whole number",
	"int64":    "a whole number",
	"uint":     "a whole number that is not negative",
	"float64":  "a number",
	"duration": "a time such as 90s or 15m",
}
