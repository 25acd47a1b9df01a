package work

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/account"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/cli/spec"
	"banger/internal/cli/workspace"
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

// Presets of a VM for work. They are more than those of run: such a VM compiles.
const (
	PresetImage  = "debian-bookworm-dev"
	presetMemory = "2g"
	presetCPUs   = "2"
	presetIdle   = "15m"
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
	Changed   []string // flags of a VM that the user has given

	// Base finds the image of a new VM, in place of Image, or nil; with build it makes an image that is not there. Made is
	// called when a new VM has its workspace. Both may be nil.
	Base func(ctx context.Context, build bool) (*banger.Image, error)
	Made func(context.Context, banger.VM) error
}

// Session returns the session that the request wants.
func (r Request) Session(a *command.App) banger.SessionSpec {
	o := r.Options.Spec
	e := banger.Exec{Args: r.Command, Env: o.Env, Dir: o.WorkingDir, User: o.User, Stdin: true, Workspace: o.WorkingDir == "",
		TTY: o.TTY || render.IsTerminal(a.Stdin) && render.IsTerminal(a.Stdout)}
	if len(e.Args) == 0 {
		e.Args = []string{"/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"}
	}
	return banger.SessionSpec{Command: e}
}

// home is the working tree that a request is about.
type home struct {
	source, branch string
	tools          tooling.Plan
}

// Enter returns the running VM of a request, with the workspace and the tools in it. It finds the VM of an earlier
// time, or makes one. A VM that it made and that fails is removed.
func Enter(ctx context.Context, a *command.App, c *client.Client, r Request) (vm banger.VM, err error) {
	var h home
	if h.source, h.branch, err = tree.Place(ctx, r.Path); err != nil {
		return vm, err
	}
	if r.Bootstrap {
		if h.tools, err = tooling.Read(h.source); err != nil {
			return vm, err
		}
	}
	if !r.New {
		known, ok, err := find(ctx, c, r, h)
		if err != nil {
			return vm, err
		}
		if ok {
			return enterAgain(ctx, a, c, r, h, known)
		}
	}
	return enterNew(ctx, a, c, r, h)
}

// find returns the latest VM of the repository and branch, or the one that the request names.
func find(ctx context.Context, c *client.Client, r Request, h home) (vm banger.VM, ok bool, err error) {
	list, err := c.List(ctx, true, []string{"label=" + labelSource})
	if err != nil {
		return vm, false, err
	}
	for _, one := range list {
		if !mine(one, r, h) || name(r) != "" && one.Name != name(r) {
			continue
		}
		if !ok || one.CreatedAt.After(vm.CreatedAt) {
			vm, ok = one, true
		}
	}
	return vm, ok, nil
}

func name(r Request) string { return r.Options.Spec.Name }

// mine reports whether a VM is for a repository, branch and agent. Forks have the labels of their source, but are VMs of
// their own.
func mine(vm banger.VM, r Request, h home) bool {
	l := vm.Spec.Labels
	return l[labelSource] == text.Line(h.source) && l[labelBranch] == text.Line(h.branch) && l[LabelAgent] == r.Agent &&
		vm.ForkOf == ""
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
		return vm, banger.Errorf(banger.CodeConflict, "VM %s is there already for this repository and branch, and %s is for "+
			"a new one", vm.Name, changed[0]).WithHint("use it as it is; change it: banger update %s; or make another: --new",
			vm.Name)
	}
	vm, err := GoOn(ctx, a, c, vm)
	if err != nil {
		return vm, err
	}
	news, err := workspace.News(ctx, a, c, vm)
	if banger.CodeOf(err) == banger.CodeNotFound { // an earlier call was cut off before the workspace was there
		return vm, workspace.Bring(ctx, a, c, vm.ID, r.Path, r.Options.Spec.User)
	}
	for _, line := range news {
		Say(a, line)
	}
	if err == nil {
		err = (&bootstrap{app: a, client: c, plan: h.tools}).update(ctx, vm)
	}
	return vm, err
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
	s, err := r.spec(ctx, h)
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
		if s.Name, err = freeName(ctx, c, h); err != nil {
			return vm, err
		}
	}
	if vm, err = Create(ctx, a, c, s); err != nil {
		return vm, err
	}
	err = tools.install(ctx, vm)
	if err == nil {
		err = workspace.Bring(ctx, a, c, vm.ID, r.Path, s.User)
	}
	if err == nil && r.Made != nil {
		err = r.Made(ctx, vm)
	}
	if err != nil {
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
	vm, err = c.Create(with, s, true, func(e banger.Event) {
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
func (r Request) spec(ctx context.Context, h home) (banger.Spec, error) {
	o := r.Options
	preset := func(flag string, at *string, value string) {
		if !slices.Contains(r.Changed, flag) {
			*at = value
		}
	}
	preset("memory", &o.Memory, presetMemory)
	preset("cpus", &o.CPUs, presetCPUs)
	preset("idle", &o.Idle, presetIdle)
	image := r.Image
	if image == "" {
		image = PresetImage
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
	s.Env = append(identity(ctx), s.Env...)
	return s, nil
}

// identity returns the environment with which commits in the VM get this user's name.
func identity(ctx context.Context) (env []string) {
	for setting, names := range map[string][]string{
		"user.name":  {"GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"},
		"user.email": {"GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"},
	} {
		if value := git.OfUser(ctx, setting); value != "" {
			for _, name := range names {
				env = append(env, name+"="+value)
			}
		}
	}
	slices.Sort(env)
	return env
}

// freeName returns a name for a new VM, made of the repository's and the branch's, that no VM has.
func freeName(ctx context.Context, c *client.Client, h home) (string, error) {
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
