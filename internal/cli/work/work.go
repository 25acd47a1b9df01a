// Package work has the command work: one VM for each repository and branch, with the repository and its tools in it,
// and a shell or a command as a session.
//
// The package must not know how a workspace travels, nor how a session is kept.
package work

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/session"
	"banger/internal/cli/spec"
	"banger/internal/cli/workspace"
)

// flags are those of work beside those of a VM.
type flags struct {
	spec.Options
	fresh       bool
	fork        int
	checkpoint  bool
	noBootstrap bool
	detachKeys  string
	secrets     spec.Secrets
	withSecrets bool
}

// New returns the command work.
func New(a *command.App) *cobra.Command {
	var o flags
	c := &cobra.Command{
		Use:   "work [flags] [PATH] [IMAGE] [-- COMMAND...]",
		Short: "Work on a repository in a VM of its own, with its tools",
		Long: `Work on a repository in a VM of its own. The first time, banger makes a VM from IMAGE, installs the tools that
the repository asks for (see: banger tooling plan), brings the working tree around PATH to /workspace, and starts a
shell or the COMMAND there. Later, the same VM is used again: there is one for each repository and branch. The exit
code is that of the command.

The VM goes on when you leave, and is suspended after 15 minutes without use (--idle); it wakes when it is used. The
flags of a VM are those of banger run, and hold for a VM that is made.`,
		Example: `  banger work
  banger work ~/src/project -- make test
  banger work --new --memory 4g . debian-bookworm-dev
  banger work --fork 3 -- sh -c './try-hard --seed $BANGER_TRY'`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := o.request(c, args)
			if err != nil {
				return err
			}
			return run(c.Context(), a, r, o)
		},
	}
	fs := c.Flags()
	o.Register(fs)
	fs.SetInterspersed(true)
	fs.BoolVar(&o.fresh, "new", false, "make another VM, although there is one for this repository and branch")
	fs.IntVar(&o.fork, "fork", 0, "run the command in so many forks, and make a branch of the result of each")
	fs.BoolVar(&o.checkpoint, "checkpoint", false, "first take a snapshot, to which banger snapshot restore goes back")
	fs.BoolVar(&o.noBootstrap, "no-bootstrap", false, "install no tools")
	o.secrets.Register(fs)
	command.WithSecrets(fs, &o.withSecrets)
	fs.StringVar(&o.detachKeys, "detach-keys", session.DefaultDetachKeys, background.KeysUsage)
	return c
}

// request reads the command line.
func (o *flags) request(c *cobra.Command, args []string) (r Request, err error) {
	words := args
	if dash := c.ArgsLenAtDash(); dash >= 0 {
		words, r.Command = args[:dash], args[dash:]
		if len(r.Command) == 0 {
			return r, command.UsageErrorf("a command is missing behind --")
		}
	}
	if len(words) > 2 {
		return r, command.UsageErrorf("write: %s (see: banger work --help)", c.UseLine())
	}
	r.Path = "."
	if len(words) > 0 {
		r.Path = words[0]
	}
	if st, err := os.Stat(r.Path); err != nil || !st.IsDir() {
		return r, banger.Errorf(banger.CodeNotFound, "there is no directory %s", r.Path).
			WithHint("with an image, write the path first: banger work . IMAGE")
	}
	if len(words) == 2 {
		r.Image = words[1]
	}
	if o.fork != 0 && (o.fork < 0 || len(r.Command) == 0) {
		return r, command.UsageErrorf("--fork needs a number and a command behind --")
	}
	r.New, r.Bootstrap, r.Options = o.fresh, !o.noBootstrap, o.Options
	r.Changed = Changed(c.Flags(), "fork", "checkpoint", "with-secrets")
	r.Secrets, err = o.secrets.Read(nil, true) // stdin belongs to the command
	return r, err
}

// Changed returns the flags that the user has given and that describe a new VM: all but those of a session, and those
// in others.
func Changed(fs *pflag.FlagSet, others ...string) (names []string) {
	fs.Visit(func(f *pflag.Flag) {
		if !own[f.Name] && !slices.Contains(others, f.Name) {
			names = append(names, f.Name)
		}
	})
	return names
}

// own are the flags that do not describe a VM, in all commands that have those of a VM.
var own = map[string]bool{"new": true, "no-bootstrap": true, "detach-keys": true, "secret": true, "secret-env": true,
	"name": true, "quiet": true, "tty": true, "env": true, "env-file": true, "workdir": true, "user": true}

func run(ctx context.Context, a *command.App, r Request, o flags) error {
	keys, err := session.ParseDetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vm, h, err := enter(ctx, a, c, r)
	if err == nil && o.fork > 0 {
		err = withinBudget(ctx, c, h.user.Budget, o.fork, vm.Spec.Memory)
	}
	if err != nil {
		return err
	}
	if o.checkpoint {
		if err := checkpoint(ctx, a, c, vm, o.withSecrets); err != nil {
			return err
		}
	}
	if o.fork > 0 {
		return workspace.Try(ctx, a, c, vm.ID, o.fork, o.withSecrets, r.Command)
	}
	s := r.Session(a)
	within(ctx, c, vm, h, r.Path, &s.Command)
	ended, err := Session(ctx, a, c, vm, s, keys)
	return errors.Join(err, Leave(a, c, vm, r, ended))
}

// within lets a command start where the user is: in the directory of the workspace that path is on this host, if the
// VM has it.
func within(ctx context.Context, c *client.Client, vm banger.VM, h home, path string, e *banger.Exec) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	rest, rerr := filepath.Rel(h.source, abs)
	if !e.Workspace || err != nil || rerr != nil || !filepath.IsLocal(rest) || rest == "." {
		return
	}
	dir := filepath.Join(workspace.Path, rest)
	info, err := c.StatFile(ctx, vm.ID, banger.FileRequest{Op: banger.FileStat, Path: []byte(dir)})
	if err == nil && info.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		e.Dir, e.Workspace = dir, false
	}
}

// Leave is called when the user has left a VM, or when the session has ended: it removes the VM if the user wants that,
// or tells what the VM costs.
func Leave(a *command.App, c *client.Client, vm banger.VM, r Request, ended bool) error {
	if r.Options.Spec.AutoRemove && ended {
		return Remove(c, vm.ID)
	}
	left(a, c, vm.ID)
	return nil
}

// checkpoint takes a snapshot and says how to go back to it.
func checkpoint(ctx context.Context, a *command.App, c *client.Client, vm banger.VM, with bool) error {
	s, err := c.CreateSnapshot(ctx, vm.ID, "", with)
	if err == nil {
		Say(a, fmt.Sprintf("checkpoint %s; go back to it: banger snapshot restore %s %s", s.Name, vm.Name, s.Name))
	}
	return err
}

// Say tells the user something that is no result.
func Say(a *command.App, line string) {
	if !a.Quiet {
		render.Line(a.Stderr, "banger: "+line)
	}
}

// Remove stops a VM and removes it, also after an interrupt.
func Remove(c *client.Client, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := c.Remove(ctx, id, true)
	if banger.CodeOf(err) == banger.CodeNotFound {
		return nil
	}
	return err
}

// Session starts a session in the workspace of a VM, and connects this process with it until one of them ends. It
// removes a session that has ended; ended is false if the user has left it.
func Session(ctx context.Context, a *command.App, c *client.Client, vm banger.VM, s banger.SessionSpec,
	keys []byte) (ended bool, err error) {
	a.OnTerminal(&s.Command)
	started, err := c.StartSession(ctx, vm.ID, s)
	if err != nil {
		return true, err
	}
	first := uint64(0)
	how := session.Attachment{Keys: keys, TTY: s.Command.TTY, EOF: !s.Command.TTY}
	ctx = context.WithoutCancel(ctx) // from here on, signals go to the command
	err = background.Attach(ctx, a, vm.ID, started, how, &first)
	now, serr := c.Session(ctx, vm.ID, started.Name)
	if ended = serr != nil || now.State == banger.SessionEnded; ended {
		c.RemoveSession(ctx, vm.ID, started.Name, false)
	}
	return ended, err
}

// left says that the VM still runs, what it costs, and how to park it.
func left(a *command.App, c *client.Client, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := c.ListWithSizes(ctx, true, []string{"id=" + id})
	if err != nil || len(list) != 1 || list[0].State != banger.StateRunning {
		return
	}
	vm := list[0]
	cost := banger.FormatSize(vm.DiskUsed) + " of disk"
	if st, err := c.Stats(ctx, id); err == nil {
		cost = banger.FormatSize(st.Memory) + " of memory and " + cost
	}
	park := "it runs until you park it: banger suspend " + vm.Name
	if t := vm.Spec.Idle; len(vm.Secrets) > 0 && t.Action != banger.ActionStop {
		park = "it has secrets, so it runs until you park it: banger stop " + vm.Name
	} else if t.Seconds > 0 {
		word := "suspended"
		if t.Action == banger.ActionStop {
			word = "stopped"
		}
		park = fmt.Sprintf("it is %s after %s without use, or now by: banger suspend %s", word,
			shortly(time.Duration(t.Seconds)*time.Second), vm.Name)
	}
	Say(a, fmt.Sprintf("VM %s still runs, with %s; %s", vm.Name, cost, park))
}

// shortly writes a time without the parts that are 0: 15m, not 15m0s.
func shortly(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-len(zero)+1]
		}
	}
	return s
}
