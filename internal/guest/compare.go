package guest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// OpCompare is for a guest with CompareArgument. It answers with a Response for each banger.FileChange, without its
// patch, which comes behind it in frames of output, and with frame.Exit at the end.
const OpCompare = "compare"

// CompareArgument is the kernel argument, with the names of its disks, of a guest that only compares these disks. It
// mounts them for reading, and runs no program of the image.
const CompareArgument = "banger.compare"

// CompareBefore and CompareAfter are the names of the disks that a guest compares. Without CompareBefore it compares
// the other one with the image.
const (
	CompareBefore = "before"
	CompareAfter  = "after"
)

// Maximum lengths in bytes of what the agent says of one file.
const (
	maxComparedPath = 128 << 10
	maxPatch        = 8 << 20
	maxNote         = 200
)

// kinds and differs are what the agent may say of a file.
var (
	kinds   = []string{banger.FileAdded, banger.FileRemoved, banger.FileChanged}
	differs = []string{banger.DiffersType, banger.DiffersContent, banger.DiffersTarget, banger.DiffersDevice,
		banger.DiffersMode, banger.DiffersOwner, banger.DiffersXattrs}
)

// Compare calls take for each file that differs on the disks of a guest with CompareArgument. ctx bounds the answer. An
// error of take ends it.
func (c Client) Compare(ctx context.Context, patch bool, take func(banger.FileChange) error) error {
	conn, err := c.send(ctx, Request{Op: OpCompare, Patch: patch})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	frames := frame.NewReader(conn)
	var now *banger.FileChange // its patch comes
	var text strings.Builder
	finish := func() error {
		if now == nil {
			return nil
		}
		now.Patch = text.String()
		text.Reset()
		return take(*now)
	}
	for {
		t, p, err := frames.Next()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return banger.Errorf(banger.CodeGuest, "the agent did not send the whole comparison: %w", err)
		case t == frame.Error:
			return agentError(p)
		case t == frame.Exit:
			return finish()
		case t == frame.Stdout && now != nil && text.Len()+len(p) <= maxPatch:
			text.Write(p)
			continue
		case t != frame.Response:
			return banger.Errorf(banger.CodeGuest, "the agent sent frame %d of %d bytes in a comparison", t, len(p))
		}
		if err := finish(); err != nil {
			return err
		}
		if now, err = parseChange(p); err != nil {
			return err
		}
	}
}

// parseChange returns what a frame says of a file.
func parseChange(p []byte) (*banger.FileChange, error) {
	c := &banger.FileChange{}
	if err := json.Unmarshal(p, c); err != nil {
		return nil, banger.Errorf(banger.CodeGuest, "the agent's comparison is broken: %w", err)
	}
	known := slices.Contains(kinds, c.Change) && len(c.Differs) <= len(differs)
	for _, d := range c.Differs {
		known = known && slices.Contains(differs, d)
	}
	length := len(c.Path) + len(c.RawPath)
	for _, s := range []*banger.FileState{c.Before, c.After} {
		if s != nil {
			length += len(s.Target)
			s.Device = text.Limit(s.Device, maxNote)
		}
	}
	if !known || !strings.HasPrefix(c.Path, "/") || length > maxComparedPath || c.Patch != "" {
		return nil, banger.Errorf(banger.CodeGuest, "the agent says of a file what is no comparison: %.200q", p)
	}
	c.Note = text.Limit(c.Note, maxNote)
	return c, nil
}
