package warm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/disk"
	"banger/internal/shim"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

const (
	// settle is how long no VM may have started before a template is made.
	settle = time.Second
	// lowest is the priority of what nobody waits for (setpriority(2)).
	lowest = 19
	// tryAgain is the pause after a template could not be made.
	tryAgain = 10 * time.Minute
	// maxRoom is the maximum room of all templates in bytes, and roomPercent is that of the file system.
	maxRoom     = 4 << 30
	roomPercent = 5
	// leastFree is how many bytes of the file system stay free.
	leastFree = 1 << 30
)

// makerUID is the user of a VM that becomes a template, if the daemon is root. No other VM has it, and one template is
// made at a time.
const makerUID = shim.FirstUID + 1<<24

// Run makes the templates that are wanted until ctx ends.
func (w *Warm) Run(ctx context.Context) {
	defer w.store.Close()
	for ctx.Err() == nil {
		s, ok := w.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
			}
			continue
		}
		if !w.awaitQuiet(ctx) {
			return
		}
		w.try(ctx, s)
	}
}

// next returns a shape that is wanted.
func (w *Warm) next() (s shape, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s = range w.wanted {
		return s, true
	}
	return s, false
}

// awaitQuiet returns when the host is idle and no VM starts, and false when ctx ends before.
func (w *Warm) awaitQuiet(ctx context.Context) bool {
	for {
		w.mu.Lock()
		wait := settle - time.Since(w.quiet)
		if w.starting > 0 {
			wait = settle
		}
		w.mu.Unlock()
		if wait <= 0 {
			return w.o.Idle(ctx) == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// try makes a template, unless a VM starts meanwhile. It is then made later.
func (w *Warm) try(ctx context.Context, s shape) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w.mu.Lock()
	if w.starting > 0 {
		w.mu.Unlock()
		return
	}
	w.stop = stop
	w.mu.Unlock()
	err := w.make(ctx, s)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = nil
	if err != nil && ctx.Err() != nil {
		return
	}
	delete(w.wanted, s.key)
	if err != nil {
		w.failed[s.key] = time.Now()
		w.o.Log.Warn("no template was made, and VMs of this shape boot", "vm", s.vm.Name, "err", err)
	}
}

// make makes the template of a shape: a VM of this shape that is written down when its guest waits for its host.
func (w *Warm) make(ctx context.Context, s shape) (err error) {
	limit, err := w.room()
	if err != nil {
		return err
	}
	vm := s.vm
	vm.ID = banger.NewID()
	defer func() { err = errors.Join(err, w.dirs.Remove(vm.ID), w.o.Plans.Groups.Remove(vm.ID)) }()
	if err := w.dirs.Make(vm.ID); err != nil {
		return err
	}
	if err := makeDisk(w.dirs.Disk(vm.ID, ""), s); err != nil {
		return err
	}
	p, err := w.o.Plans.In(w.dirs).Make(ctx, vm, makerUID, s.initramfs)
	if err != nil {
		return err
	}
	if now, err := shapeOf(p, vm, s.start != startLater); err != nil || now.key != s.key {
		return errors.Join(err, errors.New("what VMs of this shape are made of has changed"))
	}
	p.Shim.Template, p.Shim.Nice = true, w.nice
	mounted := ""
	if s.start != startLater {
		p.Shim.VM.Cmdline += " " + waits[s.start]
		mounted = w.dirs.Disk(vm.ID, "")
	}
	if n := p.Shim.Network; n != nil {
		n.Loopback, n.Policy = "", banger.Policy{Default: banger.Deny}
	}
	group, _, err := w.o.Plans.Groups.Join(vm.ID, vm.Spec)
	if err != nil {
		return err
	}
	defer group.Close()
	p.Identity.Group = group
	client := shim.Client{Dir: w.dirs.VM(vm.ID), Run: w.dirs.Sockets(vm.ID)}
	if err := client.Start(ctx, w.o.ShimArgv, p.Shim, p.Identity); err != nil {
		return err
	}
	w.dirs.CleanRun(vm.ID) // a jail has other names of the files
	keep := append(vmm.SavedNames(), filepath.Base(w.dirs.Disk(vm.ID, "")))
	if err := untrusted.Reclaim(w.dirs.VM(vm.ID), keep...); err != nil {
		return err
	}
	err = w.store.Add(s.key, banger.Template{Image: vm.Spec.Image, ImageDigest: vm.ImageDigest, Kernel: vm.Kernel,
		VMM: p.VMM, Banger: banger.Version, CPUs: vm.Spec.CPUs, Memory: vm.Spec.Memory, Network: vm.Spec.Network,
		Start: s.start},
		w.dirs.VM(vm.ID), mounted)
	if err != nil {
		return err
	}
	w.o.Log.Info("a template was made", "vm", s.vm.Name, "image", vm.Spec.Image)
	removed, err := w.store.Shrink(limit)
	for _, t := range removed {
		w.o.Log.Info("a template was removed to make room", "template", t.ID)
	}
	return err
}

// makeDisk makes the disk of a VM that becomes a template. A guest that does not mount it sees only its size.
func makeDisk(path string, s shape) error {
	if s.start != startLater {
		return disk.Create(path, s.disk)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(s.disk)
}

// room returns how many bytes all templates may take, or an error if the file system has no room for another one.
func (w *Warm) room() (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(w.o.StateDir, &fs); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: w.o.StateDir, Err: err}
	}
	if int64(fs.Bavail)*fs.Bsize < leastFree {
		return 0, errors.New("the disk of " + filepath.Clean(w.o.StateDir) + " has too little room for templates")
	}
	return min(int64(fs.Blocks)*fs.Bsize/100*roomPercent, maxRoom), nil
}
