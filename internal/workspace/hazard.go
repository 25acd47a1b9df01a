package workspace

import (
	"context"

	"banger/internal/hazard"
	"banger/internal/tree"
)

// Hazard is a changed file that a tool of the host may obey when a person opens the tree.
type Hazard struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Hazards returns the files that the guest has changed and that tools of the host may obey.
func (c *Capture) Hazards(ctx context.Context) (list []Hazard, err error) {
	changes, err := c.Changes(ctx)
	if err != nil {
		return nil, err
	}
	now, err := c.quar.List(ctx, c.Tree)
	if err != nil {
		return nil, err
	}
	for _, change := range changes {
		why, err := c.hazard(ctx, now, change.Path)
		if err != nil {
			return nil, err
		}
		if why != "" {
			list = append(list, Hazard{change.Path, why})
		}
	}
	return list, nil
}

// hazard returns why a tool may obey a file of a listing, or "".
func (c *Capture) hazard(ctx context.Context, now tree.Listing, name string) (string, error) {
	e, ok := now[name]
	if !ok {
		return "", nil
	}
	if e.Mode != tree.ModeLink {
		return hazard.Of(name), nil
	}
	target, err := c.quar.Git.Bytes(ctx, "", "cat-file", "blob", e.OID)
	if err == nil && hazard.LeadsOut(name, string(target)) {
		return "it is a symlink that leads out of the tree", nil
	}
	return hazard.Of(name), err
}
