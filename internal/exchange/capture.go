package exchange

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"

	"banger"
	"banger/internal/archive"
	"banger/internal/frame"
	"banger/internal/workspace"
)

// The parts of a workspace's changes.
const (
	All         = ""
	WorkingTree = "tree"
)

// Capture takes the changes of a workspace. The caller closes the capture.
func (p *Place) Capture(ctx context.Context, part string) (*workspace.Capture, error) {
	if p.It.Error != "" {
		return nil, banger.Errorf(banger.CodeGuest, "workspace %s is not mounted in VM %s: %s", p.It.Name, p.VM, p.It.Error)
	}
	tracked, err := p.Home.Tracked(ctx, p.Record)
	if err != nil {
		return nil, err
	}
	ignore, err := p.Home.Ignored(ctx, p.Record)
	if err != nil {
		return nil, err
	}
	conn, err := p.Client.WorkspaceChanges(ctx, p.VM, p.It.Name, part, ignore)
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
	c, err := p.Home.Capture(ctx, p.Record, changes)
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
