package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/account"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/session"
	"banger/internal/cli/spec"
)

// runOptions are the flags of run.
type runOptions struct {
	specFlags
	detach     bool
	keep       bool
	detachKeys string
	from       string

	withSecrets bool
}

func newRun(a *app) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run [flags] IMAGE [--] [COMMAND...]",
		Short: "Create a VM from an image and run a command in it",
		Long: `Create a VM from an image, boot it and run a command in it; the VM stops when the
command ends. Without a command the image's own runs; on a terminal it gets one.
The exit code is the command's; 125 banger failed, 126 the command cannot be run,
127 there is no such command, 128+n it was killed by signal n.`,
		Example: `  banger run debian-bookworm
  banger run --rm -e GREETING=hello debian-bookworm -- sh -c 'echo $GREETING'
  tar c . | banger run --rm -i debian-bookworm -- tar t
  banger run -d --name web --memory 1g docker.io/library/nginx`,
		RunE: func(c *cobra.Command, args []string) error {
			if o.from != "" {
				return runCode(runFrom(c, a, o, args))
			}
			if o.withSecrets {
				return runCode(banger.Errorf(banger.CodeInvalid, "--with-secrets is about a snapshot").
					WithHint("name the snapshot by --from, or give secrets by --secret"))
			}
			s, err := o.resolve(a, c, args)
			if err != nil {
				return runCode(err)
			}
			return runCode(runRun(c.Context(), a, o, s))
		},
	}
	o.register(c)
	c.Flags().BoolVarP(&o.detach, "detach", "d", false, "run in the background and print the VM's id")
	c.Flags().BoolVar(&o.keep, "keep", false, "the command goes on when this terminal closes; see banger attach")
	c.Flags().StringVar(&o.from, "from", "", "go on from this snapshot instead of an IMAGE; the VM is as it was, and "+
		"outlives the COMMAND unless --rm is given")
	command.WithSecrets(c.Flags(), &o.withSecrets)
	c.Flags().StringVar(&o.detachKeys, "detach-keys", session.DefaultDetachKeys, background.KeysUsage)
	return c
}

func runRun(ctx context.Context, a *app, o runOptions, s banger.Spec) error {
	terminal := render.IsTerminal(a.Stdin) && render.IsTerminal(a.Stdout)
	if !o.detach && len(s.Cmd) == 0 && terminal {
		o.interactive, s.TTY = true, true
	}
	if s.TTY && o.interactive && !o.detach && !render.IsTerminal(a.Stdin) {
		return banger.Errorf(banger.CodeInvalid, "stdin is not a terminal").WithHint("leave out -t")
	}
	keys, err := session.ParseDetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	s.Attach, s.Stdin = !o.detach, o.interactive
	client, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vm, err := o.withIDFile(func() (banger.VM, error) { return a.create(ctx, client, s, o.given, true) })
	if err != nil {
		return err
	}
	a.refreshSSH(ctx)
	if s.AutoRemove && !o.detach {
		defer a.refreshSSH(ctx)
	}
	if o.detach {
		a.Say(vm.ID)
		if o.Ready.Waits() {
			_, err = client.Ready(ctx, vm.ID, o.Ready.Within)
		}
		return err
	}
	// From here on, signals go to the command and do not cancel ctx.
	main := banger.Exec{Main: true, Stdin: o.interactive, TTY: vm.Spec.TTY}
	how := session.Attachment{Keys: keys, TTY: main.TTY, Main: true, Ends: !o.keep}
	status, err := a.session(context.WithoutCancel(ctx), vm.ID, vm.Name, main, how)
	if errors.Is(err, session.ErrDetached) {
		return background.Left(a.App, vm.Name, func() (int, error) { return status, err })
	}
	if errors.Is(err, session.ErrInterrupted) {
		if s.AutoRemove && !o.keep {
			a.forceRemove(vm.ID)
		}
		return &command.ExitError{Code: status}
	}
	if err != nil {
		a.forceRemove(vm.ID)
		return err
	}
	if err := a.awaitEnd(ctx, vm.ID); err != nil {
		return err
	}
	if status != 0 {
		return &command.ExitError{Code: status}
	}
	return nil
}

// create makes a VM. When it is interrupted, it removes the VM completely before it returns.
func (a *app) create(ctx context.Context, client *client.Client, s banger.Spec, given spec.Given,
	start bool) (banger.VM, error) {
	var id atomic.Value
	with, err := account.WithSpec(ctx, client, s)
	if err != nil {
		return banger.VM{}, err
	}
	p := a.Progress()
	vm, err := client.Create(with, s, given.Values, start, func(e banger.Event) {
		if e.ID != "" {
			id.Store(e.ID)
		}
		p.Emit(e)
	})
	p.Close()
	if made, ok := id.Load().(string); ok && ctx.Err() != nil {
		a.forceRemove(made)
	}
	return vm, err
}

// awaitEnd returns when the VM has ended, or at a signal. The daemon may end before the VM does; the command then
// runs on, and awaitEnd starts another daemon.
func (a *app) awaitEnd(ctx context.Context, id string) error {
	// Earlier signals went to the command.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for {
		_, err := a.Client.Wait(ctx, id)
		switch banger.CodeOf(err) {
		case banger.CodeNotFound, banger.CodeCanceled:
			return nil
		case banger.CodeUnavailable:
			if _, err := a.Connect(ctx); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// session starts a command and runs it until it ends, or until the user leaves the main command. name is the VM's name
// as the user knows it.
func (a *app) session(ctx context.Context, ref, name string, e banger.Exec, how session.Attachment) (int, error) {
	a.OnTerminal(&e)
	conn, err := a.Client.Exec(ctx, ref, e)
	if err != nil {
		return 0, err
	}
	stdio := a.Stdio()
	if !e.Stdin {
		stdio.In = nil
	}
	if e.Main {
		return session.Attach(ctx, conn, stdio, how, name, a.Ping(ref))
	}
	return session.Run(ctx, conn, stdio, e.TTY, name, a.Ping(ref))
}

// forceRemove stops and removes a VM and returns when it is gone. It is no error if the VM is already gone.
func (a *app) forceRemove(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a.Client.Remove(ctx, id, true)
}

func newCreate(a *app) *cobra.Command {
	var o specFlags
	c := &cobra.Command{
		Use:   "create [flags] IMAGE [--] [COMMAND...]",
		Short: "Create a VM without starting it",
		RunE: func(c *cobra.Command, args []string) error {
			s, err := o.resolve(a, c, args)
			if err != nil {
				return err
			}
			client, err := a.Connect(c.Context())
			if err != nil {
				return err
			}
			vm, err := o.withIDFile(func() (banger.VM, error) { return a.create(c.Context(), client, s, o.given, false) })
			if err != nil {
				return err
			}
			a.refreshSSH(c.Context())
			a.Say(vm.ID)
			return nil
		},
	}
	o.register(c)
	return c
}

// noImage returns the error for a command line without an image.
func noImage(c *cobra.Command) error {
	return &command.ExitError{
		Code: exitBanger,
		Err:  fmt.Errorf("no image given (for example: %s debian-bookworm)", c.CommandPath()),
	}
}
