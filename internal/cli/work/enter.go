package work

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/account"
	"banger/internal/cli/command"
	review "banger/internal/cli/config"
	"banger/internal/cli/render"
	"banger/internal/cli/secret"
	"banger/internal/cli/spec"
	"banger/internal/cli/workspace"
	"banger/internal/config"
	"banger/internal/git"
	"banger/internal/text"
	"banger/internal/tooling"
	tree "banger/internal/workspace"
)

// Labels by which the VM of a repository and a branch is found again.
const (
	labelSource = "banger.work"
	labelBranch = "banger.work.branch"
	LabelAgent  = "banger.work.agent" // the name of the agent for which the VM was made
)

// Request says what a user wants to work on, and where.
type Request struct {
	Path      string   // in the working tree, or a directory
	Image     string   // "": the preset
	Command   []string // nil: a shell
	New       bool     // make another VM, although there is one
	Bootstrap bool     // install the tools of the repository
	Agent     string   // the agent for which the VM is, or ""
	Options   spec.Options
	Secrets   spec.Given // what the VM gets of secrets, and which are variables of the session
	Changed   []string   // flags of a VM that the user has given

	// Base finds the image of a new VM, in place of Image, or nil; with build it makes an image that is not there. Made
	// is called before a new VM gets its workspace. Both may be nil.
	Base func(ctx context.Context, build bool) (*banger.Image, error)
	Made func(context.Context, banger.VM) error
}

// Session returns the session that the request wants.
func (r Request) Session(a *command.App) banger.SessionSpec {
	o := r.Options.Spec
	e := banger.Exec{Args: r.Command, Env: o.Env, Dir: o.WorkingDir, User: o.User, Stdin: true,
		Workspace: o.WorkingDir == "", Secrets: r.Secrets.Env,
		TTY: o.TTY || render.IsTerminal(a.Stdin) && render.IsTerminal(a.Stdout)}
	if len(e.Args) == 0 {
		e.Args = []string{"/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"}
	}
	return banger.SessionSpec{Command: e}
}

// home is the working tree that a request is about, and what is wanted for it.
type home struct {
	source, branch string
	tools          tooling.Plan
	user           config.User
	project        *config.Project // nil without a file, or if the user has denied it
	merged         config.Merged
}

// newHome reads what is wanted for the working tree around a path. It may ask the user.
func newHome(ctx context.Context, a *command.App, r Request) (h home, err error) {
	if h.source, h.branch, err = tree.Place(ctx, r.Path); err != nil {
		return h, err
	}
	if h.user, err = config.LoadUser(a.Paths.Config); err != nil {
		return h, err
	}
	if h.project, err = review.Reviewed(ctx, a, h.source); err != nil {
		return h, err
	}
	h.merged = config.Merge(config.ForWork(), h.user, h.project)
	if !r.Bootstrap || h.project != nil && !h.project.Bootstrap {
		return h, nil
	}
	if h.tools, err = tooling.Read(h.source); err == nil && h.project != nil {
		h.project.Pin(&h.tools)
	}
	return h, err
}

// Enter returns the running VM of a request, with the workspace and the tools in it. It finds the VM of an earlier
// time, or makes one. A VM that it made and that fails is removed.
func Enter(ctx context.Context, a *command.App, c *client.Client, r Request) (vm banger.VM, err error) {
	vm, _, err = enter(ctx, a, c, r)
	return vm, err
}

// enter is Enter, with what is wanted for the working tree.
func enter(ctx context.Context, a *command.App, c *client.Client, r Request) (vm banger.VM, h home, err error) {
	if h, err = newHome(ctx, a, r); err != nil {
		return vm, h, err
	}
	release, err := alone(ctx, a, r, h)
	if err != nil {
		return vm, h, err
	}
	defer release()
	known, ok := banger.VM{}, false
	if !r.New {
		if known, ok, err = find(ctx, c, r, h); err != nil {
			return vm, h, err
		}
	}
	if ok {
		vm, err = enterAgain(ctx, a, c, r, h, known)
		if err != nil { // the daemon may have undone what a command began that was killed
			_, gone := c.Get(ctx, known.ID)
			ok = banger.CodeOf(gone) != banger.CodeNotFound
		}
	}
	if !ok {
		vm, err = enterNew(ctx, a, c, r, h)
	}
	if err == nil {
		err = secret.Give(ctx, c, vm.ID, r.Secrets)
	}
	if err == nil && r.Agent == "" {
		err = services(ctx, a, c, vm, h)
	}
	return vm, h, err
}

// alone waits until no other command makes or completes the VM of a repository and branch, and keeps others away until
// release is called. The lock of a command that was killed is free.
func alone(ctx context.Context, a *command.App, r Request, h home) (release func(), err error) {
	key := sha256.Sum256([]byte(h.source + "\x00" + h.branch + "\x00" + r.Agent))
	told := time.AfterFunc(time.Second, func() {
		Say(a, "another command makes the VM of this repository and branch; this one waits for it")
	})
	defer told.Stop()
	if release, err = a.Daemon.HoldFile(ctx, "work-"+hex.EncodeToString(key[:8])+".lock"); err != nil && ctx.Err() == nil {
		err = banger.Errorf(banger.CodeUnavailable, "cannot lock a file in %s: %w", a.Paths.State, banger.Cause(err))
	}
	return release, err
}

// find returns the latest VM of the repository and branch, or the one that the request names.
func find(ctx context.Context, c *client.Client, r Request, h home) (vm banger.VM, ok bool, err error) {
	list, err := c.List(ctx, true, []string{"label=" + labelSource})
	if err != nil {
		return vm, false, err
	}
	ids := map[string]bool{}
	for _, one := range list {
		ids[one.ID] = true
	}
	for _, one := range list {
		if ids[one.ForkOf] || !mine(one, r, h) || name(r) != "" && one.Name != name(r) {
			continue
		}
		if !ok || one.CreatedAt.After(vm.CreatedAt) {
			vm, ok = one, true
		}
	}
	return vm, ok, nil
}

func name(r Request) string { return r.Options.Spec.Name }

// mine reports whether a VM has the labels of a repository, branch and agent. A fork has those of its source, whose
// place it may take.
func mine(vm banger.VM, r Request, h home) bool {
	l := vm.Spec.Labels
	return l[labelSource] == text.Line(h.source) && l[labelBranch] == text.Line(h.branch) && l[LabelAgent] == r.Agent
}

// enterAgain lets a VM go on, and says what has changed on both sides.
func enterAgain(ctx context.Context, a *command.App, c *client.Client, r Request, h home, vm banger.VM) (banger.VM,
	error) {
	var changed []string
	for _, flag := range r.Changed {
		changed = append(changed, "--"+flag)
	}
	if r.Image != "" {
		changed = append([]string{"an image"}, changed...)
	}
	if len(changed) > 0 {
		return vm, banger.Errorf(banger.CodeConflict, "VM %s is there already for this repository and branch, and %s is "+
			"for a new one", vm.Name, changed[0]).
			WithHint("use it as it is; change it: banger update %s; or make another: --new", vm.Name)
	}
	if vm.State != banger.StateRunning {
		if err := withinBudget(ctx, c, h.user.Budget, 1, vm.Spec.Memory); err != nil {
			return vm, err
		}
	}
	vm, err := GoOn(ctx, a, c, vm)
	if err != nil {
		return vm, err
	}
	tools := &bootstrap{app: a, client: c, plan: h.tools}
	news, err := workspace.News(ctx, a, c, vm)
	if banger.CodeOf(err) == banger.CodeNotFound {
		Say(a, "an earlier command was cut off before VM "+vm.Name+" was complete, so this one completes it")
		return vm, fill(ctx, a, c, r, h, vm, tools.update)
	}
	for _, line := range news {
		Say(a, line)
	}
	if err == nil {
		err = tools.update(ctx, vm)
	}
	return vm, err
}

// fill brings everything into a VM that has nothing of it, or a part. The workspace comes last: a VM that has it is
// complete.
func fill(ctx context.Context, a *command.App, c *client.Client, r Request, h home, vm banger.VM,
	install func(context.Context, banger.VM) error) error {
	if err := install(ctx, vm); err != nil {
		return err
	}
	if err := syncFiles(ctx, a, c, vm, h.user.FileSync); err != nil {
		return err
	}
	if r.Made != nil {
		if err := r.Made(ctx, vm); err != nil {
			return err
		}
	}
	return workspace.Bring(ctx, a, c, vm.ID, r.Path, vm.Spec.User)
}

// GoOn makes a VM run that is there.
func GoOn(ctx context.Context, a *command.App, c *client.Client, vm banger.VM) (banger.VM, error) {
	if vm.State == banger.StateRunning {
		return vm, nil
	}
	p := a.Progress()
	defer p.Close()
	switch vm.State {
	case banger.StatePaused, banger.StateSuspending, banger.StateSuspended, banger.StateResuming:
		return c.Resume(ctx, vm.ID, p.Emit)
	}
	return c.Start(ctx, vm.ID, false, false, p.Emit)
}

// enterNew makes a VM.
func enterNew(ctx context.Context, a *command.App, c *client.Client, r Request, h home) (vm banger.VM, err error) {
	s, err := r.spec(ctx, a, h)
	if err == nil {
		err = withinBudget(ctx, c, h.user.Budget, 1, s.Memory)
	}
	if err != nil {
		return vm, err
	}
	base := r.Base
	if base == nil {
		base = func(ctx context.Context, build bool) (*banger.Image, error) {
			return Image(ctx, a, c, s.Image, s.Platform, s.Pull, build)
		}
	}
	tools := bootstrap{app: a, client: c, plan: h.tools}
	img, err := base(ctx, false)
	if err == nil {
		err = tools.check(ctx, s, img)
	}
	if err != nil {
		return vm, err
	}
	if img, err = base(ctx, true); err != nil {
		return vm, err
	}
	s.Image, s.Pull = img.Reference, banger.PullNever
	if err := tools.choose(ctx, &s, *img); err != nil {
		return vm, err
	}
	if s.Name == "" {
		if s.Name, err = freeName(ctx, c, h, r.Agent); err != nil {
			return vm, err
		}
	}
	if vm, err = Create(ctx, a, c, s); err != nil {
		return vm, err
	}
	if err = fill(ctx, a, c, r, h, vm, tools.install); err != nil {
		Remove(c, vm.ID)
	}
	return vm, err
}

// Create makes a VM and starts it. A VM that does not start is removed.
func Create(ctx context.Context, a *command.App, c *client.Client, s banger.Spec) (vm banger.VM, err error) {
	with, err := account.WithSpec(ctx, c, s)
	if err != nil {
		return vm, err
	}
	p := a.Progress()
	defer p.Close()
	var made string
	vm, err = c.Create(with, s, nil, true, func(e banger.Event) {
		if e.ID != "" {
			made = e.ID
		}
		p.Emit(e)
	})
	if err != nil && made != "" {
		Remove(c, made)
	}
	return vm, err
}

// spec returns the VM that a request wants.
func (r Request) spec(ctx context.Context, a *command.App, h home) (banger.Spec, error) {
	o := r.Options
	o.Preset(func(flag string) bool { return slices.Contains(r.Changed, flag) }, h.merged)
	if h.project != nil {
		o.Publish = slices.Concat(o.Publish, h.project.Ports)
	}
	o.Stdin, o.Tell = a.Stdin, func(text string) { Say(a, text) }
	image := r.Image
	if image == "" {
		image = h.merged.Image
	}
	s, err := o.Resolve(image, nil)
	if err != nil {
		return s, err
	}
	s.Labels[labelSource], s.Labels[labelBranch] = text.Line(h.source), text.Line(h.branch)
	if r.Agent != "" {
		s.Labels[LabelAgent] = r.Agent
	}
	s.Entrypoint, s.AutoRemove = []string{}, false // it has no main command: it is there for sessions
	s.Env = append(identity(ctx, h.user.Git), s.Env...)
	return s, nil
}

// identity returns the environment with which commits in the VM get this user's name: that of the configuration, or
// else that of the host's git.
func identity(ctx context.Context, who config.Identity) (env []string) {
	name, email := who.Name, who.Email
	if name == "" {
		name = git.OfUser(ctx, "user.name")
	}
	if email == "" {
		email = git.OfUser(ctx, "user.email")
	}
	if name != "" {
		env = append(env, "GIT_AUTHOR_NAME="+name, "GIT_COMMITTER_NAME="+name)
	}
	if email != "" {
		env = append(env, "GIT_AUTHOR_EMAIL="+email, "GIT_COMMITTER_EMAIL="+email)
	}
	return env
}

// freeName returns a name for a new VM, made of the repository's, the branch's and the agent's, that no VM has.
func freeName(ctx context.Context, c *client.Client, h home, agent string) (string, error) {
	list, err := c.List(ctx, true, nil)
	if err != nil {
		return "", err
	}
	taken := map[string]bool{}
	for _, vm := range list {
		taken[vm.Name] = true
	}
	base := label(filepath.Base(h.source))
	if b := label(h.branch); b != "" && b != "main" && b != "master" {
		base += "-" + b
	}
	if agent != "" {
		base += "-" + label(agent)
	}
	if base = strings.Trim(base, "-"); base == "" {
		base = "work"
	}
	base = strings.Trim(base[:min(len(base), 50)], "-")
	if banger.CheckName(base) != nil {
		base = "work-" + base
	}
	name := base
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name, nil
}

// label makes a text a DNS label, or "".
func label(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if n := b.Len(); n > 0 && b.String()[n-1] != '-' {
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-")
}
