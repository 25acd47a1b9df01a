package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/exchange"
	"banger/internal/workspace"
)

// Path is where a VM has its workspace unless the user says something else.
const Path = "/" + exchange.Preset

// Bring makes the workspace of a working tree or a directory in a VM that has none, at Path.
func Bring(ctx context.Context, a *command.App, c *client.Client, vm, source, user string) error {
	quiet := *a
	quiet.Stdout = io.Discard // stdout belongs to a command
	return prepare(ctx, &quiet, c, vm, prepareFlags{user: user,
		Options: workspace.Options{Source: source, Path: Path, Name: exchange.Preset, Depth: presetDepth}})
}

// presetDepth is how many commits of the history come along.
const presetDepth = 50

// News says what has changed since the baseline of a VM's workspace, in the VM and on this host. lines is empty if
// nothing has.
func News(ctx context.Context, a *command.App, c *client.Client, vm banger.VM) (lines []string, err error) {
	p, err := exchange.Find(ctx, homeOf(a), c, vm.ID)
	if err != nil {
		return nil, err
	}
	capture, err := p.Capture(ctx, exchange.All)
	if err != nil {
		return nil, err
	}
	defer capture.Close()
	guest, err := capture.Changes(ctx)
	if err != nil {
		return nil, err
	}
	commits, err := capture.Commits(ctx)
	if err != nil {
		return nil, err
	}
	host, err := p.Home.Host(ctx, p.Record)
	if err != nil {
		return nil, err
	}
	if len(guest) > 0 || commits > 0 {
		lines = append(lines, fmt.Sprintf("in the VM: %s (banger workspace diff %s)", moved(len(guest), commits), vm.Name))
	}
	if n := len(host.Changes); n > 0 || host.Moved {
		words := moved(n, 0)
		if host.Moved {
			words += ", HEAD is another commit"
		}
		lines = append(lines, fmt.Sprintf("on this host: %s (bring that in: banger workspace sync %s)", words, vm.Name))
	}
	return lines, nil
}

func moved(files, commits int) string {
	words := fmt.Sprintf("%d files changed", files)
	if files == 1 {
		words = "1 file changed"
	}
	switch commits {
	case 0:
		return words
	case 1:
		return words + ", 1 new commit"
	}
	return fmt.Sprintf("%s, %d new commits", words, commits)
}

// Try runs a command in several forks of a VM, each in its workspace, and makes a branch of the result of each.
// with allows that the forks have the secrets of the VM.
func Try(ctx context.Context, a *command.App, c *client.Client, vm string, number int, with bool, cmd []string) error {
	p, err := exchange.Find(ctx, homeOf(a), c, vm)
	if err != nil {
		return err
	}
	return tryAll(ctx, a, p, number, false, with, cmd)
}

// Diff prints what has changed in a VM's workspace since its baseline: the files, and how many lines of each.
func Diff(ctx context.Context, a *command.App, c *client.Client, vm string) error {
	p, err := exchange.Find(ctx, homeOf(a), c, vm)
	if err != nil {
		return err
	}
	capture, err := p.Capture(ctx, exchange.WorkingTree)
	if err != nil {
		return err
	}
	defer capture.Close()
	notes(a, capture.Notes...)
	w, flush := render.Printable(a.Stderr)
	return errors.Join(capture.Patch(ctx, w, true), flush())
}

// Sides returns where the workspace of a VM is, on this host and in the VM.
func Sides(ctx context.Context, a *command.App, c *client.Client, vm string) (host, guest string, err error) {
	p, err := exchange.Find(ctx, homeOf(a), c, vm)
	if err != nil {
		return "", "", err
	}
	return p.Record.Source, p.It.Path, nil
}
