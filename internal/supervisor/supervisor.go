// Package supervisor owns every VM. It creates them (one straight function), runs each behind an owner goroutine, and
// restores them after a daemon's death. It makes the decisions. The packages below it make images, kernels, disks,
// shims and rows.
//
// It contains no HTTP, no SQL text, no netlink and no os/exec.
package supervisor

import (
	"context"
	"log/slog"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/access"
	"banger/internal/branch"
	"banger/internal/cgroup"
	"banger/internal/feed"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/launch"
	"banger/internal/library"
	"banger/internal/limit"
	"banger/internal/network/bridge"
	"banger/internal/networks"
	"banger/internal/plan"
	"banger/internal/reserve"
	"banger/internal/shim"
	"banger/internal/store"
	"banger/internal/view"
	"banger/internal/vmdir"
	"banger/internal/vmm/choice"
	"banger/internal/wake"
	"banger/internal/warm"
)

// Options are the parts of a Supervisor. The caller owns and closes them.
type Options struct {
	StateDir string // durable: VM disks and logs
	RunDir   string // sockets; must be short, because sun_path holds 108 bytes
	ShimArgv []string
	Agent    []byte // the guest agent's binary
	VMMs     choice.Host
	KVMGroup uint32 // group that may open /dev/kvm, for VMMs that run as users of their own
	Root     bool   // each VM gets a uid of its own
	Memory   int64  // of the host, in bytes; 0 means unknown
	CPUs     int    // of the host; 0 means unknown
	BootID   string // of the host (random(4), boot_id)

	// InitTime is the time that an image's init may take until it runs and, if it is systemd, accepts requests. 0 means
	// 30 s.
	InitTime         time.Duration
	UseTemplatesOnly bool                        // none are made
	Idle             func(context.Context) error // for package warm
	// IdleTick is the time between two looks at VMs that may be idle. 0 means a minute.
	IdleTick time.Duration
	Log      *slog.Logger // may be nil
	Store    *store.Store
	Images   *image.Store
	Kernels  *kernel.Store
	// Reserve is released when the disk is full and something must be removed. It may be nil.
	Reserve *reserve.File

	// Groups limit what VMs may use of the host. Nil means no limits.
	Groups *cgroup.Tree

	// Bridge makes the host's bridges. They report refusals of their resolver to denied. Nil if the daemon may not make
	// bridges.
	Bridge func(denied func(id string, d banger.Decision)) *bridge.Host
}

// Supervisor owns all VMs of one daemon.
type Supervisor struct {
	opts Options
	dirs vmdir.Dirs
	ctx  context.Context // ends when the supervisor closes; VMs keep running
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	machines map[string]*machine

	networks *networks.Networks
	library  *library.Library
	launcher *launch.Launcher
	warm     *warm.Warm
	branches *branch.Branches
	doors    *wake.Doors
	changes  *feed.Feed[banger.Change]

	rebooted bool     // the host has rebooted since the last daemon; constant after Restore
	problems []string // what Restore could not repair; constant after Restore
}

// New returns a Supervisor without VMs. Restore finds them.
func New(opts Options) (*Supervisor, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	dirs := vmdir.Dirs{State: opts.StateDir, Run: opts.RunDir}
	if err := dirs.MakeAll(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Supervisor{opts: opts, dirs: dirs, ctx: ctx, stop: stop,
		machines: map[string]*machine{}, changes: feed.New[banger.Change](view.Kept)}
	parts := networks.Options{Store: opts.Store, VMs: s, Knock: func(id string) { s.doors.Knock(id) }}
	if opts.Bridge != nil {
		parts.Bridge = opts.Bridge(s.denied)
	}
	s.networks = networks.New(parts)
	s.doors = wake.New(wake.Options{Networks: s.networks, Wake: reachable{s}.Wake, Owner: uint32(os.Getuid()),
		Log: opts.Log})
	needs := branch.Needs{VMs: s, Branches: s.Snapshots, Running: access.Guests{VMs: reachable{s}}.Changes}
	s.library = library.New(library.Options{Images: opts.Images, Kernels: opts.Kernels, VMs: needs, Reserve: opts.Reserve,
		Dir: opts.StateDir})
	var err error
	s.branches, err = branch.New(branch.Options{VMs: branching{s}, Forwards: s.Connections(), Dirs: dirs,
		VMMs: opts.VMMs, Log: opts.Log})
	if err != nil {
		return nil, err
	}
	plans := plan.Planner{Dirs: dirs, Layers: s.branches.Layers, State: opts.StateDir, Agent: opts.Agent, VMMs: opts.VMMs,
		KVMGroup: opts.KVMGroup, Root: opts.Root, Images: opts.Images, Kernels: opts.Kernels, Library: s.library,
		Groups: s.groups(), Log: opts.Log}
	s.warm, err = warm.New(warm.Options{Plans: plans, StateDir: opts.StateDir, RunDir: opts.RunDir,
		ShimArgv: opts.ShimArgv, UseOnly: opts.UseTemplatesOnly, Idle: opts.Idle, Log: opts.Log})
	s.launcher = launch.New(launch.Launcher{Plans: plans, Networks: s.networks, Warm: s.warm, ShimArgv: opts.ShimArgv,
		InitTime: opts.InitTime})
	return s, err
}

// Close gives up the VMs, which keep running in their shims.
func (s *Supervisor) Close() {
	s.stop()
	s.doors.Shut()
	s.wg.Wait()
	s.branches.Close()
	if s.networks.Bridge != nil {
		s.networks.Bridge.Close()
	}
}

// Library returns the images and kernels that VMs are made of.
func (s *Supervisor) Library() *library.Library { return s.library }

// Templates returns the templates from which VMs start.
func (s *Supervisor) Templates() *warm.Warm { return s.warm }

// Networks returns the networks of the VMs.
func (s *Supervisor) Networks() *networks.Networks { return s.networks }

// UID returns the user of a VM's VMM if the daemon is root. For an unknown VM it returns -1 as an unsigned number.
func (s *Supervisor) UID(id string) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machines[id]; m != nil {
		return m.uid()
	}
	return ^uint32(0)
}

func (m *machine) uid() uint32 { return uint32(shim.FirstUID + m.slot) }

// List returns the VMs for which keep is true, newest first.
func (s *Supervisor) List(keep func(banger.VM) bool) []banger.VM {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []banger.VM
	for _, m := range s.machines {
		if vm := m.Snapshot(); keep(vm) {
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

// Watch calls emit with what happens to VMs, as view.Follow does, until ctx or the supervisor ends.
func (s *Supervisor) Watch(ctx context.Context, since string, emit func(banger.Change) error) error {
	return view.Follow(ctx, s.changes, s.ctx.Done(), since, s.List, emit)
}

// DiskUsed returns how many bytes of the host's disk a VM takes.
func (s *Supervisor) DiskUsed(id string) int64 { return s.dirs.Used(id) }

// Get returns the VM that ref names: a name, an id, or a unique prefix of an id.
func (s *Supervisor) Get(ref string) (banger.VM, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, err
	}
	return m.Snapshot(), nil
}

func (s *Supervisor) find(ref string) (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var byPrefix []*machine
	for id, m := range s.machines {
		if m.Snapshot().Name == ref || id == ref {
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
	return nil, banger.Errorf(banger.CodeInvalid, "%q is the start of %d VM ids", ref, len(byPrefix)).
		WithHint("give more of the id")
}

// adopt makes a machine for a row and starts its owner goroutine.
func (s *Supervisor) adopt(vm banger.VM, slot int) *machine {
	m := &machine{
		s:        s,
		log:      s.opts.Log.With("vm", vm.ID),
		slot:     slot,
		View:     view.New(vm, s.changes),
		recorder: s.dirs.Recorder(vm.ID),
		ops:      make(chan func()),
		ended:    make(chan shim.Status, 1),
	}
	m.ctx, m.cancel = context.WithCancel(s.ctx)
	s.mu.Lock()
	s.machines[vm.ID] = m
	s.mu.Unlock()
	s.wg.Go(m.loop)
	return m
}

func (s *Supervisor) forget(m *machine) {
	s.mu.Lock()
	delete(s.machines, m.ID())
	s.mu.Unlock()
}

func (s *Supervisor) shim(id string) shim.Client {
	return shim.Client{Dir: s.dirs.VM(id), Run: s.dirs.Sockets(id)}
}

// shims returns the processes of the VMs' shims.
func (s *Supervisor) shims() shim.Processes {
	return shim.Processes{VMs: s.dirs.VMs(), Argv: s.opts.ShimArgv}
}

func (s *Supervisor) groups() limit.Groups {
	return limit.Groups{Tree: s.opts.Groups, Emulated: !s.opts.VMMs.KVM}
}

// checkHost rejects a spec that this host can never satisfy, and warns of what it lacks for one.
func (s *Supervisor) checkHost(spec banger.Spec, emit banger.Emit) error {
	return limit.Host{Memory: s.opts.Memory, CPUs: s.opts.CPUs, Emulated: !s.opts.VMMs.KVM}.Check(spec, emit)
}
