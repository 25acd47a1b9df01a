// Package warm finds the template for a start of a VM, decides when new templates are made, and makes them. It must not
// know of states or rows of VMs, nor what a VMM is.
package warm

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"banger"
	"banger/internal/plan"
	"banger/internal/process"
	"banger/internal/shim"
	"banger/internal/template"
	"banger/internal/vmdir"
)

// Options are the parts of a Warm.
type Options struct {
	Plans    plan.Planner
	StateDir string
	RunDir   string
	ShimArgv []string
	Log      *slog.Logger
	// UseOnly says that no templates are made.
	UseOnly bool
	// Idle returns when the host has CPU to spare, or with the error of ctx. If it is nil, Warm
	// looks itself, and makes templates with the lowest priority.
	Idle func(ctx context.Context) error
}

// Warm is the templates of one daemon.
type Warm struct {
	o     Options
	store *template.Store
	dirs  vmdir.Dirs // of VMs that become templates
	nice  int        // priority of the making

	mu       sync.Mutex
	starting int                  // starts of VMs that are under way
	quiet    time.Time            // when the last of them ended
	stop     context.CancelFunc   // ends the making of a template; nil: none is made
	wanted   map[string]shape     // by ids of shapes, without those that have a template
	failed   map[string]time.Time // when a template of a shape could not be made
	wake     chan struct{}        // has room for one
}

// New returns a Warm that makes nothing before Run. It ends and removes what an earlier daemon was making, and removes
// the templates from which no VM can start any more.
func New(o Options) (*Warm, error) {
	w := &Warm{o: o, wanted: map[string]shape{}, failed: map[string]time.Time{}, wake: make(chan struct{}, 1),
		dirs: vmdir.Dirs{State: o.StateDir, Run: o.RunDir}.Making()}
	if o.Idle == nil {
		w.o.Idle, w.nice = awaitIdle, lowest
	}
	var err error
	if w.store, err = template.Open(vmdir.Dirs{State: o.StateDir}.Ready()); err != nil {
		return nil, err
	}
	if err := w.dirs.MakeAll(); err != nil {
		return nil, err
	}
	if err := w.sweep(); err != nil {
		return nil, err
	}
	if removed, err := w.Prune(false, false); err != nil || len(removed) > 0 {
		o.Log.Info("templates that fit no more were removed", "number", len(removed), "err", err)
	}
	return w, nil
}

// Plans returns what plans of VMs are made of.
func (w *Warm) Plans() plan.Planner { return w.o.Plans }

// sweep ends the shims of templates that were being made, and removes their files.
func (w *Warm) sweep() error {
	err := shim.Processes{VMs: w.dirs.VMs(), Argv: w.o.ShimArgv}.Each(func(_ string, pid int) {
		process.KillOwn(pid, 5*time.Second)
	})
	ids, lerr := w.dirs.Unknown(nil)
	err = errors.Join(err, lerr)
	for _, id := range ids {
		err = errors.Join(err, w.dirs.Remove(id), w.o.Plans.Groups.Remove(id))
	}
	return errors.Join(err, w.dirs.Sweep(nil))
}

// Starting says that a start of a VM begins, which no making of a template may delay. The caller calls done at its end.
func (w *Warm) Starting() (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starting++
	if w.stop != nil {
		w.stop()
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.starting, w.quiet = w.starting-1, time.Now()
	}
}

// Find returns the template for a start, or nil if the store does not have it. fresh says that no guest has used the
// VM's disk. If the VM's spec asks for a template, its absence is an error. The caller closes the template.
func (w *Warm) Find(p plan.Plan, vm banger.VM, fresh bool) (*template.Opened, error) {
	if vm.Spec.Warm == banger.WarmNever {
		return nil, nil
	}
	s, err := shapeOf(p, vm, fresh)
	if err == nil {
		var t *template.Opened
		if t, err = w.store.Use(s.key, p.SealedMemory); err == nil {
			return t, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			w.Drop(template.IDOf(s.key), err)
		}
	}
	if vm.Spec.Warm == banger.WarmOnly {
		return nil, banger.Errorf(banger.CodeUnavailable, "there is no template for VM %s: %s", vm.Name, whyNone(err)).
			WithHint("leave out --warm=only once; a template is made after a cold start, when the host is idle")
	}
	return nil, nil
}

// whyNone says why there is no template, given the error of the search.
func whyNone(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "no VM of its shape has started before"
	}
	return err.Error()
}

// Drop removes a template from which a VM did not start.
func (w *Warm) Drop(id string, why error) {
	w.o.Log.Warn("a template is dropped, and the VM boots", "template", id, "why", why)
	if err := w.store.Remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.o.Log.Warn("a template was not removed", "template", id, "err", err)
	}
}

// Want asks for a template of the shape of a VM that has booted. It is made when the host is idle. fresh says that no
// guest had used the VM's disk before.
func (w *Warm) Want(p plan.Plan, vm banger.VM, fresh bool) {
	if vm.Spec.Warm == banger.WarmNever || w.o.UseOnly {
		return
	}
	s, err := shapeOf(p, vm, fresh)
	if err != nil || w.store.Has(s.key) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.failed[s.key]) < tryAgain {
		return
	}
	w.wanted[s.key] = s
	select {
	case w.wake <- struct{}{}:
	default: // Run knows already
	}
}

// List returns the templates, the one that was used last first.
func (w *Warm) List() ([]banger.Template, error) { return w.store.List() }

// Remove removes the template whose id starts with ref. VMs that have started from it go on.
func (w *Warm) Remove(ref string) (banger.Template, error) {
	t, err := w.store.Find(ref)
	if err != nil {
		return t, err
	}
	if err := w.store.Remove(t.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t, banger.Errorf(banger.CodeUnavailable, "template %s was not removed: %w", t.ID, err)
	}
	return t, nil
}

// Prune removes the templates from which no VM can start any more, or, with all, every template. It returns those. With
// dryRun, it removes none.
func (w *Warm) Prune(all, dryRun bool) (removed []banger.Template, err error) {
	list, err := w.store.List()
	for _, t := range list {
		if !all && w.fits(t) {
			continue
		}
		if dryRun {
			removed = append(removed, t)
			continue
		}
		if rerr := w.store.Remove(t.ID); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
			continue
		}
		removed = append(removed, t)
	}
	if err != nil {
		err = banger.Errorf(banger.CodeUnavailable, "not all templates were removed: %w", err)
	}
	return removed, err
}
