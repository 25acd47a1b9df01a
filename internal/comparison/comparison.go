// Package comparison says which files differ between VMs, or between a VM and what it has come from. It also lets
// others ask what is on the disk of a VM that does not run. A VM of its own, the helper, reads the disks: the daemon
// never reads a guest's file system. The helper has no network, and nothing that it writes reaches a VM.
//
// The package must not know how a disk is kept still, nor what a file system is.
package comparison

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/branch"
	"banger/internal/plan"
	"banger/internal/process"
	"banger/internal/reserve"
	"banger/internal/shim"
	"banger/internal/snapshot"
	"banger/internal/vmdir"
)

const (
	// limit is how long one use of a helper may take.
	limit = 15 * time.Minute
	// bootTime is how long a helper may take to boot, as for any VM.
	bootTime = 2 * time.Minute
	// endTime is how long the end of a helper may take.
	endTime = 10 * time.Second
	// keepTime is how long a helper is kept that may be used again.
	keepTime = 3 * time.Second
	// memory is that of a helper in bytes.
	memory = 256 << 20
)

// helperUID is the user of a helper if the daemon is root. No other VM has it, and one helper runs at a time.
const helperUID = shim.FirstUID + 1<<24 + 1

// Comparer compares the VMs of one daemon. Its methods may be called at the same time.
type Comparer struct {
	plans    plan.Planner
	branches *branch.Branches
	shimArgv []string
	log      *slog.Logger
	dirs     vmdir.Dirs      // of helpers
	place    chan struct{}   // holds a value while a helper is used
	kept     *helper         // one that waits for another use, or nil; the holder of the place may use it
	ctx      context.Context // ends with the Comparer
	stop     context.CancelFunc
}

// New returns a Comparer with these parts, which the caller owns. It ends and removes the helper of an earlier daemon.
func New(plans plan.Planner, branches *branch.Branches, shimArgv []string, log *slog.Logger) *Comparer {
	c := &Comparer{plans: plans, branches: branches, shimArgv: shimArgv, log: log, dirs: plans.Dirs.Helpers(),
		place: make(chan struct{}, 1)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	if err := errors.Join(c.dirs.MakeAll(), c.sweep()); err != nil {
		log.Warn("what an earlier daemon has left of a comparison was not removed", "err", err)
	}
	return c
}

// Close ends a comparison that is made, and returns when nothing of it is left.
func (c *Comparer) Close() {
	c.stop()
	c.place <- struct{}{}
	c.drop()
}

// enter takes the place, which the caller leaves.
func (c *Comparer) enter(ctx context.Context) error {
	select {
	case c.place <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return errEnds
	}
	if c.ctx.Err() != nil {
		c.leave()
		return errEnds
	}
	return nil
}

func (c *Comparer) leave() { <-c.place }

func (c *Comparer) shims() shim.Processes {
	return shim.Processes{VMs: c.dirs.VMs(), Argv: c.shimArgv}
}

// sweep ends helpers and removes their files.
func (c *Comparer) sweep() error {
	err := c.shims().Each(func(_ string, pid int) { process.KillOwn(pid, endTime) })
	ids, lerr := c.dirs.Unknown(nil)
	err = errors.Join(err, lerr)
	for _, id := range ids {
		err = errors.Join(err, c.dirs.Remove(id), c.plans.Groups.Remove(id))
	}
	return errors.Join(err, c.dirs.Sweep(nil))
}

// Compare emits an event for each file that differs, in the order of the paths, beside its progress.
func (c *Comparer) Compare(ctx context.Context, what banger.Comparison, emit banger.Emit) (done banger.Compared,
	err error) {
	if err := what.Check(); err != nil {
		return done, err
	}
	if err := c.enter(ctx); err != nil {
		return done, err
	}
	defer c.leave()
	c.drop()
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	done, err = c.compare(within, what, emit)
	if err != nil && ctx.Err() == nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return done, banger.Errorf(banger.CodeTimeout, "the comparison took longer than %s", limit).
			WithHint("a disk with many large files takes long; remove what need not be compared")
	}
	return done, c.explain(ctx, "the comparison failed", err)
}

// errEnds means that the daemon ends.
var errEnds = banger.Errorf(banger.CodeUnavailable, "no disk was read, because the daemon ends")

// explain gives an error its code, and says what failed. ctx is that of the client.
func (c *Comparer) explain(ctx context.Context, what string, err error) error {
	if err != nil && c.ctx.Err() != nil && ctx.Err() == nil {
		return errEnds
	}
	err = reserve.Explain(err, c.plans.State)
	if err == nil || banger.CodeOf(err) != banger.CodeInternal {
		return err
	}
	return banger.Errorf(banger.CodeUnavailable, "%s: %w", what, banger.Cause(err))
}

// sides are what is compared.
type sides struct {
	of            banger.VM // its image and its kernel are those of the helper
	before, after string    // layers; before is "" for the image alone
}

// compare is Compare for a caller that has the place.
func (c *Comparer) compare(ctx context.Context, what banger.Comparison, emit banger.Emit) (done banger.Compared,
	err error) {
	after, release, err := c.branches.Still(ctx, what.To, emit)
	if err != nil {
		return done, err
	}
	defer release()
	s := sides{of: after.Machine, after: after.Layer}
	done.To = wordsOf(after)
	if what.From == "" {
		s.before, done.From = c.branches.Origin(after)
	} else {
		before, release, err := c.branches.Still(ctx, what.From, emit)
		if err != nil {
			return done, err
		}
		defer release()
		if before.Machine.ImageDigest != after.Machine.ImageDigest {
			return done, banger.Errorf(banger.CodeConflict, "%s and %s have different images, so they are not compared",
				wordsOf(before), wordsOf(after)).
				WithHint("compare each with what it has come from: banger diff %s", what.To)
		}
		s.before, done.From = before.Layer, wordsOf(before)
	}
	h, err := c.start(ctx, s, emit)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, c.remove(h.id)) }()
	return done, h.agent.Compare(ctx, what.Patch, func(f banger.FileChange) error {
		done.Changes++
		emit(banger.Event{File: &f})
		return ctx.Err()
	})
}

// wordsOf names a snapshot, or the VM of which it was taken just now.
func wordsOf(w snapshot.Whole) string {
	if w.Passing {
		return "VM " + w.VMName
	}
	return "snapshot " + w.Name
}

// path returns the path of a helper's copy of a disk.
func (c *Comparer) path(id, serial string) string {
	return filepath.Join(c.dirs.VM(id), serial+".qcow2")
}
