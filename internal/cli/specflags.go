package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/spec"
	"banger/internal/config"
)

// specFlags are the flags of run and create.
type specFlags struct {
	spec.Options
	entrypoint  string
	interactive bool
	idFile      string
	secrets     spec.Secrets
	given       spec.Given // what secrets says, after resolve
}

func (f *specFlags) register(c *cobra.Command) {
	fs := c.Flags()
	f.Register(fs)
	f.secrets.Register(fs)
	fs.StringVar(&f.entrypoint, "entrypoint", "", `program to run instead of the image's entrypoint ("" clears it)`)
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "pass stdin to the command")
	fs.StringVar(&f.idFile, "cidfile", "", "file for the id of the VM; it must not exist")
}

// resolve turns flags and arguments into a spec. What no flag says is as in the user's configuration.
func (f *specFlags) resolve(a *app, c *cobra.Command, args []string) (banger.Spec, error) {
	if len(args) == 0 {
		return banger.Spec{}, noImage(c)
	}
	if c.Flags().Changed("entrypoint") {
		f.Spec.Entrypoint = []string{f.entrypoint}
	}
	user, err := config.LoadUser(a.Paths.Config)
	if err != nil {
		return banger.Spec{}, err
	}
	f.Preset(c.Flags().Changed, config.Merge(config.BuiltIn(), user, nil))
	f.Stdin = a.Stdin
	f.Tell = func(text string) { fmt.Fprintln(a.Stderr, "banger: "+text) }
	s, err := f.Resolve(args[0], args[1:])
	if err != nil {
		return s, err
	}
	f.given, err = f.secrets.Read(freeStdin(a, f.interactive), false)
	s.SecretEnv = f.given.Env
	return s, err
}

// freeStdin returns stdin, or nil if a command gets it.
func freeStdin(a *app, taken bool) io.Reader {
	if taken {
		return nil
	}
	return a.Stdin
}

// withIDFile calls create, and writes the id of the VM that it makes into the file that the user wants. The file is
// there before, so that a file that cannot be written leaves no VM behind. After a failure it is removed.
func (f *specFlags) withIDFile(create func() (banger.VM, error)) (banger.VM, error) {
	if f.idFile == "" {
		return create()
	}
	file, err := os.OpenFile(f.idFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return banger.VM{}, banger.Errorf(banger.CodeInvalid, "cannot make the file %s for the id: %w", f.idFile,
			banger.Cause(err)).WithHint("--cidfile names a file that does not exist")
	}
	defer file.Close()
	vm, err := create()
	if err != nil {
		os.Remove(f.idFile)
		return vm, err
	}
	if _, err := file.WriteString(vm.ID); err != nil {
		return vm, banger.Errorf(banger.CodeUnavailable, "the id of VM %s was not written to %s: %w", vm.ID, f.idFile,
			banger.Cause(err))
	}
	return vm, nil
}
