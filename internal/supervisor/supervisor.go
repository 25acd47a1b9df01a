// Package supervisor owns every VM: it creates them (one straight function), runs
// each behind an owner goroutine, and restores them after a daemon's death. It
// holds the decisions; images, kernels, disks, shims and rows are made by the
// packages below it.
//
// It contains no HTTP, no SQL text, no netlink and no os/exec.
package supervisor

import (
	"context"
	"fmt"
	"runtime"
	"sort"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/cgroup"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/library"
	"banger/internal/network/bridge"
	"banger/internal/networks"
	"banger/internal/reserve"
	"banger/internal/shim"
	"banger/internal/store"
	"banger/internal/vmdir"
	"banger/internal/vmm/choice"
)

// Options are the parts a Supervisor works with. The caller owns and closes them.
type Options struct {
	StateDir string // durable: VM disks and logs
	RunDir   string // sockets; short, since sun_path holds 108 bytes
	ShimArgv []string
	Agent    []byte // the guest agent's binary
	VMMs     choice.Host
	KVMGroup uint32 // group that may open /dev/kvm, for VMMs that run as users of their own
	Root     bool   // each VM gets a uid of its own
	Memory   int64  // of the host in bytes; 0: unknown
	CPUs     int    // of the host; 0: unknown
	BootID   string // of the host (random(4), boot_id)

	// InitTime is how long an init of the image's may take until it runs and, if it is systemd, obeys; 0: 30 s.
	InitTime time.Duration

	Store   *store.Store
	Images  *image.Store
	Kernels *kernel.Store

	// Reserve is given back when the disk is full and something is to go. Nil: there is none.
	Reserve *reserve.File

	// Groups limit what VMs may use of the host. Nil: nothing does.
	Groups *cgroup.Tree

	// Bridge makes the host's bridges, if the daemon may; denied is told what their
	// resolver refuses. Nil: there are none.
	Bridge func(denied func(id string, d banger.Denial)) *bridge.Host
}

// firstUID is where the uids of VMs start when the daemon is root: far above
// real users and their sub-ids, below 2^31.
const firstUID = 2_000_000_000

// Supervisor owns all VMs of one daemon.
type Supervisor struct {
	opts  Options
	dirs  vmdir.Dirs
	ctx   context.Context // ends when the supervisor closes; VMs live on
	stop  context.CancelFunc
	wg    sync.WaitGroup
	boots chan struct{} // emulated boots at once: they are bound by the CPU

	mu       sync.Mutex
	machines map[string]*machine

	networks *networks.Networks
	library  *library.Library

	rebooted bool     // the host has booted since the last daemon; does not change after Restore
	problems []string // what Restore could not put right; does not change afterwards
}

// New returns a Supervisor of the VMs that Restore will find.
func New(opts Options) (*Supervisor, error) {
	dirs := vmdir.Dirs{State: opts.StateDir, Run: opts.RunDir}
	if err := dirs.MakeAll(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Supervisor{opts: opts, dirs: dirs, ctx: ctx, stop: stop,
		boots: make(chan struct{}, runtime.NumCPU()), machines: map[string]*machine{}}
	parts := networks.Options{Store: opts.Store, VMs: s}
	if opts.Bridge != nil {
		parts.Bridge = opts.Bridge(s.denied)
	}
	s.networks = networks.New(parts)
	s.library = library.New(library.Options{Images: opts.Images, Kernels: opts.Kernels, VMs: s, Reserve: opts.Reserve, Dir: opts.StateDir})
	return s, nil
}

// Close stops owning the VMs, which go on running in their shims.
func (s *Supervisor) Close() {
	s.stop()
	s.wg.Wait()
	if s.networks.Bridge != nil {
		s.networks.Bridge.Close()
	}
}

// Library returns the images and kernels that VMs are made of.
func (s *Supervisor) Library() *library.Library { return s.library }

// Networks returns the networks of the VMs.
func (s *Supervisor) Networks() *networks.Networks { return s.networks }

// UID returns the user that the VMM of a VM runs as, if the daemon is root. An unknown VM has none: -1 as a number
// without a sign.
func (s *Supervisor) UID(id string) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machines[id]; m != nil {
		return m.uid()
	}
	return ^uint32(0)
}

func (m *machine) uid() uint32 { return uint32(firstUID + m.slot) }

// List returns the VMs for which keep is true, newest first.
func (s *Supervisor) List(keep func(banger.VM) bool) []banger.VM {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []banger.VM
	for _, m := range s.machines {
		if vm := m.snapshot(); keep(vm) {
			list = append(list, vm)
		}
	}
	sort.Slice(list, func(i, j int) bool {
		if !list[i].CreatedAt.Equal(list[j].CreatedAt) {
			return list[i].CreatedAt.After(list[j].CreatedAt)
		}
		return list[i].ID < list[j].ID
	})
	return list
}

// Get returns the VM that ref names: a name, an id, or a unique prefix of an id.
func (s *Supervisor) Get(ref string) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	return m.snapshot(), nil
}

func (s *Supervisor) find(ref string) (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var byPrefix []*machine
	for id, m := range s.machines {
		if m.snapshot().Name == ref || id == ref {
			return m, nil
		}
		if ref != "" && strings.HasPrefix(id, ref) {
			byPrefix = append(byPrefix, m)
		}
	}
	switch len(byPrefix) {
	case 1:
		return byPrefix[0], nil
	case 0:
		return nil, banger.Errorf(banger.CodeNotFound, "there is no VM called %q", ref).WithHint("see: banger ps -a")
	}
	return nil, banger.Errorf(banger.CodeInvalid, "%q is the start of %d VM ids", ref, len(byPrefix)).WithHint("give more of the id")
}

// adopt makes a machine for a row and starts its owner goroutine.
func (s *Supervisor) adopt(vm banger.VM, slot int) *machine {
	m := &machine{s: s, slot: slot, vm: vm, recorder: s.dirs.Recorder(vm.ID), changed: make(chan struct{}),
		ops: make(chan func()), ended: make(chan shim.Status, 1)}
	m.ctx, m.cancel = context.WithCancel(s.ctx)
	s.mu.Lock()
	s.machines[vm.ID] = m
	s.mu.Unlock()
	s.wg.Go(m.loop)
	return m
}

func (s *Supervisor) forget(m *machine) {
	s.mu.Lock()
	delete(s.machines, m.id())
	s.mu.Unlock()
}

func (s *Supervisor) shim(id string) shim.Client {
	return shim.Client{Dir: s.dirs.VM(id), Run: s.dirs.Sockets(id)}
}

func (s *Supervisor) isolation() string {
	if s.opts.VMMs.KVM {
		return banger.IsolationKVM
	}
	return banger.IsolationEmulated
}

// stopwatch collects the timings of a start.
type stopwatch struct {
	last    time.Time
	timings []banger.Timing
}

func newStopwatch() *stopwatch { return &stopwatch{last: time.Now()} }

func (w *stopwatch) lap(stage string) {
	now := time.Now()
	w.timings = append(w.timings, banger.Timing{Stage: stage, Millis: now.Sub(w.last).Milliseconds()})
	w.last = now
}

// stateError says that op does not fit the VM's state.
func stateError(op string, vm banger.VM, hint string) error {
	return banger.Errorf(banger.CodeConflict, "cannot %s VM %s: it is %s", op, vm.Name, vm.State).WithHint("%s", hint)
}

func exitReason(e banger.Exit) string {
	if e.Signal != 0 {
		return fmt.Sprintf("main command was killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("main command exited with code %d", e.Code)
}
