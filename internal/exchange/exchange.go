// Package exchange moves workspaces between this host and VMs through the client of the API: trees go in, and what
// guests have made of them comes out, into a quarantine.
//
// The package must not know commands, nor what a person is shown.
package exchange

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/frame"
	"banger/internal/sparse"
	"banger/internal/text"
	"banger/internal/workspace"
)

// HomeIn returns where the records of workspaces are, for the user who has a state directory.
func HomeIn(state string) workspace.Home {
	return workspace.Home{Dir: filepath.Join(state, "workspaces")}
}

// Active returns an error unless what changes a workspace of a VM can be done now. A VM at rest would be read by
// another VM first, for nothing.
func Active(ctx context.Context, c *client.Client, ref, what string) error {
	vm, err := c.Get(ctx, ref)
	if err == nil && vm.State.AtRest() {
		err = vm.NotRunning(what)
	}
	return err
}

// Place is a workspace in a VM, with what this host knows of it.
type Place struct {
	Client *client.Client
	Home   workspace.Home
	VM     string // as the user wrote it
	It     banger.Workspace
	Record *workspace.Record
}

// Find finds the workspace that VM or VM/WORKSPACE names. Without a name it is the only one of the VM, or the one
// that is called workspace.
func Find(ctx context.Context, home workspace.Home, c *client.Client, arg string) (*Place, error) {
	vm, name, _ := strings.Cut(arg, "/")
	p := &Place{Client: c, Home: home, VM: vm, It: banger.Workspace{Name: name}}
	return p, p.Read(ctx)
}

// FindActive is Find for what changes the workspace. what names that, for the error.
func FindActive(ctx context.Context, home workspace.Home, c *client.Client, arg, what string) (*Place, error) {
	vm, _, _ := strings.Cut(arg, "/")
	if err := Active(ctx, c, vm, what); err != nil {
		return nil, err
	}
	return Find(ctx, home, c, arg)
}

// Read reads what the VM says of the workspace with the name of p.It, and the record of it, which must fit.
func (p *Place) Read(ctx context.Context) error {
	list, err := p.Client.Workspaces(ctx, p.VM)
	if err != nil {
		return err
	}
	if p.It, err = Choose(list, p.VM, p.It.Name); err != nil {
		return err
	}
	if p.Record, err = p.Home.Get(p.It.ID); err != nil {
		return err
	}
	if p.Record.Name != p.It.Name || !p.Record.Knows(p.It.Baseline) {
		return banger.Errorf(banger.CodeGuest, "VM %s says of workspace %s what this host has not prepared", p.VM,
			p.It.Name).WithHint("remove it and prepare it again")
	}
	p.Record.Use(p.It.Baseline) // that of this VM: it may be a fork, or have gone back to a snapshot
	return nil
}

// Preset is the name of a workspace if the user says nothing else.
const Preset = "workspace"

// Choose returns the workspace of a list that has a name. Without a name it is the only one, or the preset one.
func Choose(list []banger.Workspace, vm, name string) (banger.Workspace, error) {
	var names []string
	for _, w := range list {
		if w.Name == name || name == "" && (len(list) == 1 || w.Name == Preset) {
			return w, nil
		}
		names = append(names, w.Name)
	}
	switch {
	case len(list) == 0:
		return banger.Workspace{}, banger.Errorf(banger.CodeNotFound, "VM %s has no workspace", vm).
			WithHint("bring one in: banger workspace prepare %s PATH", vm)
	case name == "":
		return banger.Workspace{}, banger.Errorf(banger.CodeInvalid, "VM %s has several workspaces", vm).
			WithHint("name one of them: %s/%s", vm, strings.Join(names, ", "+vm+"/"))
	}
	return banger.Workspace{}, banger.Errorf(banger.CodeNotFound, "VM %s has no workspace %q", vm, name).
		WithHint("it has: %s", strings.Join(names, ", "))
}

// until lets ctx end the use of a connection. The caller calls what it returns.
func until(ctx context.Context, conn net.Conn) func() bool {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// answerOf reads one frame of a type with JSON, or an error.
func answerOf(frames *frame.Reader, want frame.Type, into any) error {
	t, p, err := frames.Next()
	switch {
	case err != nil:
		return banger.Errorf(banger.CodeGuest, "the VM went away: %w", banger.Cause(err))
	case t == frame.Error:
		var e banger.Error
		if err := json.Unmarshal(p, &e); err != nil {
			return banger.Errorf(banger.CodeGuest, "the VM sent a broken error")
		}
		return text.Error(e)
	case t != want:
		return banger.Errorf(banger.CodeGuest, "the VM sent frame %d in place of an answer", t)
	}
	if err := json.Unmarshal(p, into); err != nil {
		return banger.Errorf(banger.CodeGuest, "the VM sent a broken answer")
	}
	return nil
}

// Bring makes the workspace of a plan in a VM. The record is stored first, so that no workspace is without one.
func Bring(ctx context.Context, c *client.Client, vm, user string, p *workspace.Plan) (w banger.Workspace, err error) {
	it, err := c.Get(ctx, vm)
	if err != nil {
		return w, err
	}
	r := p.Record
	conn, err := c.PrepareWorkspace(ctx, it.ID, banger.Workspace{ID: r.ID, Name: r.Name, Path: r.Path,
		Baseline: r.Baseline, Source: text.Line(r.Source)}, user)
	if err != nil {
		return w, err
	}
	defer conn.Close()
	defer until(ctx, conn)()
	frames := frame.NewReader(conn)
	if err := answerOf(frames, frame.Response, &w); err != nil {
		return w, err
	}
	image, err := p.Image(ctx, w.UID, w.GID)
	if err != nil {
		return w, err
	}
	defer image.Close()
	if err := p.Keep(it.ID); err != nil {
		return w, err
	}
	out := bufio.NewWriterSize(frame.Data(conn, frame.Stdin), frame.MaxData)
	sent := errors.Join(sparse.Send(out, image), out.Flush(), frame.Write(conn, frame.StdinEOF, nil))
	if err = answerOf(frames, frame.Exit, &w); err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil && sent != nil {
		err = banger.Errorf(banger.CodeGuest, "the VM did not take the whole workspace: %w", banger.Cause(sent))
	}
	if err != nil {
		p.Forget()
	}
	return w, err
}
