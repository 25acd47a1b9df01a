// Package acp has the command acp, which an editor starts in place of a coding agent: the agent runs in a VM, and
// messages of the Agent Client Protocol go between the two.
//
// The package must not know what the messages say.
package acp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/acp"
	"banger/internal/api/client"
	"banger/internal/cli/agent"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/secret"
	"banger/internal/cli/work"
	"banger/internal/cli/workspace"
	"banger/internal/private"
)

// flags are those of acp beside those of a VM.
type flags struct {
	agent string
	agent.Flags
}

// New returns the command acp.
func New(a *command.App) *cobra.Command {
	var o flags
	c := &cobra.Command{
		Use:   "acp [flags] VM|PATH [-- COMMAND...]",
		Short: "Be the agent of an editor: the agent works in a VM",
		Long: `Be the agent of an editor that speaks the Agent Client Protocol. An editor starts this command and speaks with
it on stdin and stdout; the agent runs in a VM with the editor's project in its workspace. With a PATH, the VM is that
of the repository around it (see: banger work), or with --agent that of the agent (see: banger agent run). Paths are
those of this host for the editor and those of the VM for the agent. The agent uses files and terminals of its VM, not
those of the editor; banger workspace diff and pull bring home what it has changed.

The agent goes on when this command is cut off, and the next one for the same VM and command goes on with it.`,
		Example: `  banger acp web -- opencode acp
  banger acp . --agent claude-code`,
		RunE: func(c *cobra.Command, args []string) error {
			words, cmd := args, []string(nil)
			if dash := c.ArgsLenAtDash(); dash >= 0 {
				words, cmd = args[:dash], args[dash:]
			}
			if len(words) != 1 || (len(cmd) == 0) == (o.agent == "") {
				return command.UsageErrorf("acp needs a VM or a path, and a command behind -- or an --agent " +
					"(see: banger acp --help)")
			}
			return run(c, a, o, words[0], cmd)
		},
	}
	o.Flags.Register(c.Flags())
	c.Flags().StringVar(&o.agent, "agent", "", "an agent by name, with its command for editors (see: banger agent ls)")
	return c
}

// place is a VM with the workspace that the editor works in.
type place struct {
	vm          banger.VM
	host, guest string
	command     banger.Exec
	agent       string
}

func run(cmd *cobra.Command, a *command.App, o flags, where string, words []string) error {
	ctx, stop := signal.NotifyContext(context.WithoutCancel(cmd.Context()), os.Interrupt, syscall.SIGTERM)
	defer stop()
	quiet := *a
	quiet.Stdout = io.Discard // stdout is for messages alone
	given, err := o.Given()
	if err != nil {
		return err
	}
	c, err := a.Connect(ctx)
	if err != nil {
		return err
	}
	p, err := find(ctx, cmd, &quiet, c, o, where, words)
	if err == nil && p.agent == "" { // a VM of an agent has them
		p.command.Secrets = given.Env
		err = secret.Give(ctx, c, p.vm.ID, given)
	}
	if err != nil {
		return err
	}
	if p.host, p.guest, err = workspace.Sides(ctx, a, c, p.vm.ID); err != nil {
		return err
	}
	name, fresh, unlock, err := session(ctx, a, c, p)
	if err != nil {
		return err
	}
	defer unlock()
	status, err := bridge(ctx, a, p, name, fresh)
	after := context.WithoutCancel(ctx)
	if err == nil || ctx.Err() != nil { // the editor has ended, or the agent
		c.StopSession(after, p.vm.ID, name, 2*time.Second)
		c.RemoveSession(after, p.vm.ID, name, true)
	}
	if p.agent != "" {
		err = errors.Join(err, agent.Save(after, a, c, p.vm, p.agent))
	}
	if err == nil && status != 0 {
		return &command.ExitError{Code: status}
	}
	return err
}

// find returns the VM that the user names by its name, or by a path.
func find(ctx context.Context, cmd *cobra.Command, a *command.App, c *client.Client, o flags, where string,
	words []string) (p place, err error) {
	st, serr := os.Stat(where)
	isPath := serr == nil && st.IsDir() || strings.Contains(where, "/")
	switch {
	case o.agent != "" && !isPath:
		return p, banger.Errorf(banger.CodeInvalid, "%s is no directory", where).
			WithHint("--agent has a VM for each repository: write a path, such as .")
	case o.agent != "":
		p.vm, p.command, p.agent, err = agent.Enter(ctx, a, c, cmd, &o.Flags, o.agent, where)
	case isPath:
		q := work.Request{Path: where, Options: o.Options, Bootstrap: !o.NoBootstrap, New: o.Fresh, Command: words,
			Changed: work.Changed(cmd.Flags(), "agent")}
		p.vm, err = work.Enter(ctx, a, c, q)
		p.command = q.Session(a).Command
	default:
		if p.vm, err = c.Get(ctx, where); err == nil {
			p.command = banger.Exec{Args: words, Workspace: true, Env: o.Spec.Env}
			p.vm, err = work.GoOn(ctx, a, c, p.vm)
		}
	}
	p.command.TTY, p.command.Stdin = false, true
	if err == nil && isPath {
		if serr := workspace.Enter(ctx, a, c, p.vm.ID, true); serr != nil {
			work.Say(a, serr.Error()+"; the VM keeps its own files for now")
		}
	}
	return p, err
}

// session starts the session of the agent, or finds one that runs and has lost its editor, which is not fresh. Nobody
// else uses it until unlock is called.
func session(ctx context.Context, a *command.App, c *client.Client, p place) (name string, fresh bool, unlock func(),
	err error) {
	for n := 1; ; n++ {
		if name = "acp"; n > 1 {
			name = fmt.Sprintf("acp-%d", n)
		}
		lock, _, err := private.Take(a.Paths.Run, fmt.Sprintf("acp-%s-%d.lock", p.vm.ID, n), 0)
		if errors.Is(err, private.ErrLocked) {
			continue
		}
		if err != nil {
			return "", false, nil, banger.Errorf(banger.CodeUnavailable, "cannot lock the session of the agent: %w",
				banger.Cause(err))
		}
		old, err := c.Session(ctx, p.vm.ID, name)
		if err == nil && old.State == banger.SessionRunning && slices.Equal(old.Command.Args, p.command.Args) {
			work.Say(a, "going on with the agent in session "+name+" of "+p.vm.Name)
			return name, false, func() { lock.Remove() }, nil
		}
		if err == nil {
			err = c.RemoveSession(ctx, p.vm.ID, name, true)
		} else if banger.CodeOf(err) == banger.CodeNotFound {
			err = nil
		}
		if err == nil {
			_, err = c.StartSession(ctx, p.vm.ID, banger.SessionSpec{Name: name, Command: p.command})
		}
		if err != nil {
			lock.Remove()
			return "", false, nil, err
		}
		return name, true, func() { lock.Remove() }, nil
	}
}

// bridge carries messages until the editor or the agent ends.
func bridge(ctx context.Context, a *command.App, p place, name string, fresh bool) (int, error) {
	b := acp.New(p.host, p.guest)
	s := &stream{app: a, vm: p.vm.ID, session: name, bridge: b, back: make(chan struct{}, 1)}
	if fresh {
		s.next = new(uint64)
	}
	s.mu.Lock()
	err := s.open(ctx)
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	out := &output{w: a.Stdout}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { ended <- fromEditor(ctx, a.Stdin, b, s, out) }() // a read of stdin may outlive it
	type result struct {
		status int
		err    error
	}
	agentEnded := make(chan result, 1)
	stderr, flush := render.Printable(a.Stderr)
	defer flush()
	go func() { // ends with ctx, or when the agent does
		status, err := s.receive(ctx, stderr, func(line []byte) error {
			forward, answer, stray := b.FromAgent(line)
			if stray {
				render.Line(a.Stderr, strings.TrimSuffix(string(line), "\n"))
			}
			if answer != nil {
				if err := s.send(ctx, answer); err != nil {
					return err
				}
			}
			return out.write(forward)
		})
		agentEnded <- result{status, err}
	}()
	select {
	case r := <-agentEnded:
		return r.status, r.err
	case err := <-ended:
		if err != nil {
			return 0, err
		}
		s.end()
	case <-ctx.Done():
		return 0, nil
	}
	select {
	case r := <-agentEnded:
		return r.status, r.err
	case <-time.After(graceOfAgent):
	case <-ctx.Done():
	}
	return 0, nil
}

// graceOfAgent is how long an agent may go on when its editor has ended.
const graceOfAgent = 10 * time.Second

// fromEditor sends the editor's messages to the agent, until the editor says no more.
func fromEditor(ctx context.Context, in io.Reader, b *acp.Bridge, s *stream, out *output) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), acp.MaxMessage)
	for lines.Scan() {
		line, answer := b.FromEditor(append(slices.Clone(lines.Bytes()), '\n'))
		if answer != nil {
			if err := out.write(answer); err != nil {
				return err
			}
		}
		if line == nil {
			continue
		}
		if err := s.send(ctx, line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return banger.Errorf(banger.CodeInvalid, "cannot read the editor's messages: %w", banger.Cause(err))
	}
	return nil
}

// output writes one message at a time.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *output) write(line []byte) error {
	if line == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.w.Write(line); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "the editor takes no more messages: %w", banger.Cause(err))
	}
	return nil
}
