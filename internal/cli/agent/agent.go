// Package agent has the commands for coding agents by name: each runs in a VM of an image of its own, with the user's
// workspace, and reaches only what its recipe and the project's registries need.
//
// The package must not know what an agent says, nor how a workspace travels.
package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/background"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/session"
	"banger/internal/cli/spec"
	"banger/internal/cli/work"
	"banger/internal/cli/workspace"
	"banger/internal/config"
	"banger/internal/recipe"
	"banger/internal/tooling"
	tree "banger/internal/workspace"
)

// New returns the command agent with its commands.
func New(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run coding agents by name, each in a VM",
		Long: `Run coding agents by name, each in a VM with your workspace. An agent reaches what its recipe names, and the
registries of your project; everything else is denied. banger policy log VM shows what was refused.`,
		Example: `  banger agent login claude-code
  banger agent run claude-code
  banger agent run codex ~/src/project --yolo --prompt 'make the tests pass' --secret OPENAI_API_KEY`,
	}
	c.AddCommand(newList(a), newRun(a), newLogin(a), newServe(a))
	return c
}

// row is a recipe as the list shows it.
type row struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Version     string `json:"version"`
	ACP         bool   `json:"acp"`
	Serve       bool   `json:"serve"`
	Kept        bool   `json:"logged_in"` // a login is kept on this host
	Own         bool   `json:"own"`       // it is the user's
}

func newList(a *command.App) *cobra.Command {
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the agents that banger knows",
		Args:    command.Usage(cobra.NoArgs),
	}
	asJSON := command.TableOrJSON(c)
	c.RunE = func(*cobra.Command, []string) error {
		inJSON, err := asJSON()
		if err != nil {
			return err
		}
		rows, err := list(a)
		if err != nil {
			return err
		}
		if inJSON {
			return render.JSON(a.Stdout, rows)
		}
		t := render.NewTable(a.Stdout, "NAME", "DESCRIPTION", "VERSION", "ACP", "SERVES", "LOGIN")
		word := map[bool]string{true: "yes", false: "-"}
		for _, r := range rows {
			t.Row(r.Name, r.Description, r.Version, word[r.ACP], word[r.Serve],
				map[bool]string{true: "kept", false: "-"}[r.Kept])
		}
		return t.Flush()
	}
	return c
}

func list(a *command.App) (rows []row, err error) {
	user, err := config.LoadUser(a.Paths.Config)
	if err != nil {
		return nil, err
	}
	all, err := recipe.All()
	if err != nil {
		return nil, err
	}
	for name, own := range user.Agents {
		if all[name], err = own.Own(); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		r := all[name]
		_, own := user.Agents[name]
		rows = append(rows, row{Name: name, Description: r.Description, Version: r.Version(), ACP: len(r.ACP) > 0,
			Serve: r.Serve != nil, Kept: keptOf(a, name).any(), Own: own})
	}
	return rows, nil
}

// Flags are those of all commands that run an agent.
type Flags struct {
	spec.Options
	Fresh       bool // make another VM
	NoBootstrap bool // install no tools

	secrets spec.Secrets
	given   *spec.Given // what secrets says, once it was read
}

// Given reads the values of the secrets, once: they are gone from the environment then. It comes before a daemon may be
// started.
func (o *Flags) Given() (spec.Given, error) {
	if o.given == nil {
		g, err := o.secrets.Read(nil, true) // stdin belongs to the agent
		if err != nil {
			return g, err
		}
		o.given = &g
	}
	return *o.given, nil
}

// find returns a recipe of the user's or of banger's, with its full name.
func find(a *command.App, name string) (string, recipe.Recipe, error) {
	user, err := config.LoadUser(a.Paths.Config)
	if err != nil {
		return name, recipe.Recipe{}, err
	}
	return recipe.Find(name, user.Agents)
}

// flags are those of run and login.
type flags struct {
	Flags
	prompt     string
	yolo       bool
	detachKeys string
}

// Register adds the flags to fs.
func (o *Flags) Register(fs *pflag.FlagSet) {
	o.Options.Register(fs)
	fs.SetInterspersed(true)
	fs.BoolVar(&o.Fresh, "new", false, "make another VM, although there is one for this agent, repository and branch")
	fs.BoolVar(&o.NoBootstrap, "no-bootstrap", false, "install no tools of the repository")
	fs.StringArrayVar(&o.secrets.Variables, "secret", nil, "NAME[=env:VARIABLE|file:PATH]: a key, which the agent gets "+
		"as a file and as a variable, and which no disk of this host ever has")
}

// request returns what to work on for an agent.
func (o *Flags) request(ctx context.Context, a *command.App, c *cobra.Command, args []string) (q work.Request,
	r recipe.Recipe, err error) {
	if q.Agent, r, err = find(a, args[0]); err != nil {
		return q, r, err
	}
	if q.Path = "."; len(args) > 1 {
		q.Path = args[1]
	}
	if q.Secrets, err = o.Given(); err != nil {
		return q, r, err
	}
	q.New, q.Bootstrap, q.Options = o.Fresh, !o.NoBootstrap, o.Options
	q.Changed = work.Changed(c.Flags(), "prompt", "yolo", "port", "agent")
	source, _, err := tree.Place(ctx, q.Path)
	if err != nil {
		return q, r, err
	}
	if !c.Flags().Changed("net-policy") && q.Options.Spec.Network != banger.NetworkNone {
		q.Options.Policy = banger.Deny
		q.Options.Allow = slices.Concat(q.Options.Allow, r.Allow, tooling.Registries(source))
		if q.Bootstrap {
			plan, err := tooling.Read(source)
			if err != nil {
				return q, r, err
			}
			q.Options.Allow = append(q.Options.Allow, plan.Hosts()...)
		}
	}
	q.Options.Spec.Env = agentEnv(r, q.Options.Spec.Env)
	return q, r, nil
}

func newRun(a *command.App) *cobra.Command {
	var o flags
	c := &cobra.Command{
		Use:   "run [flags] AGENT [PATH] [-- ARGUMENTS...]",
		Short: "Run an agent on a repository, in a VM",
		Long: `Run an agent on the repository around PATH, in a VM of an image that has the agent. There is one VM for each
agent, repository and branch. The ARGUMENTS are for the agent. With --prompt the agent does one task and ends: the
exit code is that of the agent, and stderr tells what has changed in the workspace.

With --yolo the agent asks for no permission. That is what the VM is for: it reaches only the agent's own servers and
the registries of the project (--net-allow adds to them), and nothing comes home by itself (banger workspace pull).

Logins that the agent keeps in its home directory are kept on this host for its next VM.`,
		Example: `  banger agent run claude-code
  banger agent run codex . --yolo --prompt 'make the tests pass'`,
		RunE: func(c *cobra.Command, args []string) error {
			words, extra := split(c, args)
			if len(words) < 1 || len(words) > 2 {
				return command.UsageErrorf("agent run needs an agent, and at most one path (see: banger agent run --help)")
			}
			q, r, err := o.request(c.Context(), a, c, words)
			if err != nil {
				return err
			}
			if q.Command = r.Line(r.Command, "", o.yolo, extra...); c.Flags().Changed("prompt") {
				switch {
				case o.prompt == "":
					return command.UsageErrorf("--prompt is empty")
				case len(r.Headless) == 0:
					return banger.Errorf(banger.CodeInvalid, "agent %s does nothing without a terminal", q.Agent).
						WithHint("leave out --prompt")
				}
				q.Command = r.Line(r.Headless, o.prompt, o.yolo, extra...)
			}
			return run(c.Context(), a, q, r, o)
		},
	}
	fs := c.Flags()
	o.Register(fs)
	fs.StringVar(&o.prompt, "prompt", "", "do this task, without a terminal, and end")
	fs.BoolVar(&o.yolo, "yolo", false, "the agent asks for no permission")
	fs.StringVar(&o.detachKeys, "detach-keys", session.DefaultDetachKeys, background.KeysUsage)
	return c
}

// split tells what is before -- from what is behind it.
func split(c *cobra.Command, args []string) (words, behind []string) {
	if dash := c.ArgsLenAtDash(); dash >= 0 {
		return args[:dash], args[dash:]
	}
	return args, nil
}

func run(ctx context.Context, a *command.App, q work.Request, r recipe.Recipe, o flags) error {
	leave, err := session.ParseDetachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	vm, err := enter(ctx, a, c, q, r)
	if err != nil {
		return err
	}
	s := q.Session(a)
	if s.Command.Secrets, err = keys(ctx, c, vm, r, q.Secrets.Env); err != nil {
		return err
	}
	if len(s.Command.Secrets) == 0 && !keptOf(a, q.Agent).any() {
		hint(a, r)
	}
	if o.prompt != "" {
		s.Command.TTY, s.Command.Stdin = false, false
	}
	ended, err := work.Session(ctx, a, c, vm, s, leave)
	after := context.WithoutCancel(ctx)
	err = errors.Join(err, keptOf(a, q.Agent).save(after, c, vm, r))
	if o.prompt != "" {
		if derr := workspace.Diff(after, a, c, vm.ID); derr == nil {
			work.Say(a, fmt.Sprintf("see all of it: banger workspace diff -p %s; bring it home: banger workspace pull %s",
				vm.Name, vm.Name))
		}
	}
	return errors.Join(err, work.Leave(a, c, vm, q, ended))
}

// agentEnv adds the environment of a recipe to another one.
func agentEnv(r recipe.Recipe, env []string) []string {
	for _, name := range slices.Sorted(maps.Keys(r.Env)) {
		env = append(env, name+"="+r.Env[name])
	}
	return env
}

// enter returns the running VM of an agent, with the workspace, the tools, and the logins in it.
func enter(ctx context.Context, a *command.App, c *client.Client, q work.Request, r recipe.Recipe) (vm banger.VM,
	err error) {
	q.Base = func(ctx context.Context, build bool) (*banger.Image, error) {
		return image(ctx, a, c, q.Agent, r, build)
	}
	kept := keptOf(a, q.Agent)
	q.Made = func(ctx context.Context, vm banger.VM) error {
		kept.gather(ctx, c, r, q.Agent, vm)
		return kept.restore(ctx, a, c, vm)
	}
	return work.Enter(ctx, a, c, q)
}

// keys returns the names of the secrets that an agent gets as variables: those of this call, and those of the VM that
// its recipe names.
func keys(ctx context.Context, c *client.Client, vm banger.VM, r recipe.Recipe, given []string) ([]string, error) {
	list, err := c.Secrets(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	names := slices.Clone(given)
	for _, s := range list {
		if slices.Contains(r.Secrets, s.Name) && !slices.Contains(names, s.Name) && !s.Given.IsZero() {
			names = append(names, s.Name)
		}
	}
	return names, nil
}

// hint says which key of this shell the agent would take.
func hint(a *command.App, r recipe.Recipe) {
	for _, name := range r.Secrets {
		if os.Getenv(name) != "" {
			work.Say(a, name+" is set in this shell; the agent gets it by: --secret "+name)
			return
		}
	}
}

// Enter returns the running VM of an agent, and the agent's command for editors.
func Enter(ctx context.Context, a *command.App, c *client.Client, cmd *cobra.Command, o *Flags, name, path string) (
	vm banger.VM, e banger.Exec, full string, err error) {
	q, r, err := o.request(ctx, a, cmd, []string{name, path})
	if err != nil {
		return vm, e, "", err
	}
	if len(r.ACP) == 0 {
		return vm, e, "", banger.Errorf(banger.CodeInvalid, "agent %s does not speak the Agent Client Protocol", q.Agent).
			WithHint("see: banger agent ls")
	}
	if vm, err = enter(ctx, a, c, q, r); err != nil {
		return vm, e, "", err
	}
	q.Secrets.Env, err = keys(ctx, c, vm, r, q.Secrets.Env)
	e = banger.Exec{Args: r.ACP, Env: q.Options.Spec.Env, Secrets: q.Secrets.Env, Workspace: true}
	return vm, e, q.Agent, err
}

// Save keeps the logins that an agent has in a VM now.
func Save(ctx context.Context, a *command.App, c *client.Client, vm banger.VM, name string) error {
	name, r, err := find(a, name)
	if err != nil {
		return err
	}
	return keptOf(a, name).save(ctx, c, vm, r)
}
