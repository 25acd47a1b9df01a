package workspace

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/archive"
	"banger/internal/cli/command"
	"banger/internal/frame"
	"banger/internal/sparse"
	"banger/internal/text"
	"banger/internal/workspace"
)

// homeOf returns where this user's records of workspaces are.
func homeOf(a *command.App) workspace.Home {
	return workspace.Home{Dir: filepath.Join(a.Paths.Theirs(), "workspaces")}
}

// active returns an error unless what changes a workspace of a VM can be done now. A VM at rest would be read by
// another VM first, for nothing.
func active(ctx context.Context, c *client.Client, ref, what string) error {
	vm, err := c.Get(ctx, ref)
	if err == nil && vm.State.AtRest() {
		err = vm.NotRunning(what)
	}
	return err
}

// place is a workspace in a VM, with what this host knows of it.
type place struct {
	client *client.Client
	home   workspace.Home
	vm     string // as the user wrote it
	it     banger.Workspace
	record *workspace.Record
}

// find finds the workspace that VM or VM/WORKSPACE names. Without a name it is the only one of the VM, or the one
// that is called workspace.
func find(ctx context.Context, a *command.App, c *client.Client, arg string) (*place, error) {
	vm, name, _ := strings.Cut(arg, "/")
	p := &place{client: c, home: homeOf(a), vm: vm, it: banger.Workspace{Name: name}}
	return p, p.read(ctx)
}

// findActive is find for a command that changes the workspace. what names the command, for the error.
func findActive(ctx context.Context, a *command.App, c *client.Client, arg, what string) (*place, error) {
	vm, _, _ := strings.Cut(arg, "/")
	if err := active(ctx, c, vm, what); err != nil {
		return nil, err
	}
	return find(ctx, a, c, arg)
}

// read reads what the VM says of the workspace with the name of p.it, and the record of it, which must fit.
func (p *place) read(ctx context.Context) error {
	list, err := p.client.Workspaces(ctx, p.vm)
	if err != nil {
		return err
	}
	if p.it, err = choose(list, p.vm, p.it.Name); err != nil {
		return err
	}
	if p.record, err = p.home.Get(p.it.ID); err != nil {
		return err
	}
	if p.record.Name != p.it.Name || !p.record.Knows(p.it.Baseline) {
		return banger.Errorf(banger.CodeGuest, "VM %s says of workspace %s what this host has not prepared", p.vm,
			p.it.Name).WithHint("remove it and prepare it again")
	}
	p.record.Use(p.it.Baseline) // that of this VM: it may be a fork, or have gone back to a snapshot
	return nil
}

func choose(list []banger.Workspace, vm, name string) (banger.Workspace, error) {
	var names []string
	for _, w := range list {
		if w.Name == name || name == "" && (len(list) == 1 || w.Name == preset) {
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

// bring makes the workspace of a plan in a VM. The record is stored first, so that no workspace is without one.
func bring(ctx context.Context, c *client.Client, vm, user string, p *workspace.Plan) (w banger.Workspace, err error) {
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

// The parts of a workspace's changes.
const (
	all         = ""
	workingTree = "tree"
)

// capture takes the changes of a workspace. The caller closes the capture.
func (p *place) capture(ctx context.Context, part string) (*workspace.Capture, error) {
	if p.it.Error != "" {
		return nil, banger.Errorf(banger.CodeGuest, "workspace %s is not mounted in VM %s: %s", p.it.Name, p.vm, p.it.Error)
	}
	tracked, err := p.home.Tracked(ctx, p.record)
	if err != nil {
		return nil, err
	}
	ignore, err := p.home.Ignored(ctx, p.record)
	if err != nil {
		return nil, err
	}
	conn, err := p.client.WorkspaceChanges(ctx, p.vm, p.it.Name, part, ignore)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer until(ctx, conn)()
	out := bufio.NewWriterSize(frame.Data(conn, frame.Stdin), frame.MaxData)
	for _, path := range tracked {
		out.WriteString(path + "\x00")
	}
	if err := errors.Join(out.Flush(), frame.Write(conn, frame.StdinEOF, nil)); err != nil {
		return nil, banger.Errorf(banger.CodeGuest, "the VM went away: %w", banger.Cause(err))
	}
	changes := archive.NewFrames(frame.NewReader(conn), frame.Stdout, frame.Exit)
	c, err := p.home.Capture(ctx, p.record, changes)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	if _, err := io.Copy(io.Discard, changes); err != nil { // what is behind the tar, up to the report
		c.Close()
		return nil, err
	}
	var report banger.WorkspaceReport
	if err := json.Unmarshal(changes.Last(), &report); err != nil {
		c.Close()
		return nil, banger.Errorf(banger.CodeGuest, "the VM did not say that these are all changes")
	}
	for _, note := range report.Notes {
		c.Note(note)
	}
	return c, nil
}
