package supervisor

import (
	"context"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/shim"
)

// Guests gives access to the inside of running VMs: commands, files, consoles and resource use.
type Guests struct{ s *Supervisor }

// Guests returns the access to the inside of the VMs.
func (s *Supervisor) Guests() Guests { return Guests{s} }

// Exec opens the stream of a command in a running VM. For the main command it uses only the terminal settings of e.
// Fields that are empty in e come from the image and the VM's spec. The caller owns the stream and copies its frames.
func (g Guests) Exec(ctx context.Context, ref string, e banger.Exec) (net.Conn, error) {
	m, def, err := g.running(ref, "run a command in")
	if err != nil {
		return nil, err
	}
	if e.Main {
		return mainCommand{m}.attach(ctx, e)
	}
	e.Env = mergeEnv(def.Env, e.Env)
	if e.Dir == "" {
		e.Dir = def.Dir
	}
	if e.User == "" {
		e.User = def.User
	}
	if err := e.Check(); err != nil {
		return nil, err
	}
	return m.offering().Exec(ctx, e)
}

// running finds a running VM and the defaults of its commands. what names the operation, for the error.
func (g Guests) running(ref, what string) (*machine, banger.Exec, error) {
	m, err := g.s.find(ref)
	if err != nil {
		return nil, banger.Exec{}, err
	}
	vm := m.snapshot()
	if vm.State != banger.StateRunning {
		return nil, banger.Exec{}, stateError(what, vm, "start it: banger start "+vm.Name)
	}
	img, err := g.s.opts.Images.Get(vm.ImageDigest)
	if err != nil {
		return nil, banger.Exec{}, err
	}
	return m, execDefaults(vm.Spec, img), nil
}

// Changes returns the changes of a running VM to its image as a tar, which the caller must close.
func (s *Supervisor) Changes(ctx context.Context, ref string) (banger.VM, io.ReadCloser, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.VM{}, nil, err
	}
	vm := m.snapshot()
	if vm.State != banger.StateRunning {
		return vm, nil, stateError("commit", vm, "start it: banger start "+vm.Name)
	}
	changes, err := m.agent().Changes(ctx)
	return vm, changes, err
}

// Logs writes the guest's console output: its last tail lines (all if tail is negative) and, with follow, new output
// until the VM or ctx ends.
func (g Guests) Logs(ctx context.Context, ref string, tail int, follow bool, w io.Writer) error {
	m, err := g.s.find(ref)
	if err != nil {
		return err
	}
	c := g.s.shim(m.id())
	if follow && !m.snapshot().State.AtRest() {
		if err := c.FollowConsole(ctx, tail, w); err == nil || ctx.Err() != nil {
			return nil
		}
	}
	return shim.ReadConsole(c.Dir, tail, w)
}

// Files opens the stream of a copy from or to a running VM. It carries frames of a tar and the agent's report, as
// OpArchive and OpExtract of package guest describe. The caller owns the stream and copies its frames.
func (g Guests) Files(ctx context.Context, ref string, r banger.FileRequest) (net.Conn, error) {
	m, err := g.forFiles(ref, &r)
	if err != nil {
		return nil, err
	}
	return m.offering().Files(ctx, r)
}

// StatFile describes the file at a path of a running VM.
func (g Guests) StatFile(ctx context.Context, ref string, r banger.FileRequest) (banger.FileInfo, error) {
	m, err := g.forFiles(ref, &r)
	if err != nil {
		return banger.FileInfo{}, err
	}
	return m.agent().StatFile(ctx, r)
}

// forFiles finds a running VM and resolves a relative path in r from the directory in which the VM's commands start.
func (g Guests) forFiles(ref string, r *banger.FileRequest) (*machine, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	m, def, err := g.running(ref, "copy files of")
	if err != nil {
		return nil, err
	}
	r.Resolve(def.Dir)
	return m, nil
}

// SSH opens a stream to the SSH server of a running VM's agent, which accepts the keys of r. The caller owns the
// stream.
func (g Guests) SSH(ctx context.Context, ref string, r banger.SSH) (net.Conn, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	m, def, err := g.running(ref, "connect to")
	if err != nil {
		return nil, err
	}
	r.Env = mergeEnv(def.Env, r.Env)
	return m.agent().SSH(ctx, r)
}

// Stats returns what a running VM has used since its start.
func (g Guests) Stats(ctx context.Context, ref string) (banger.Stats, error) {
	m, err := g.s.find(ref)
	if err != nil {
		return banger.Stats{}, err
	}
	vm := m.snapshot()
	if vm.State != banger.StateRunning && vm.State != banger.StatePaused {
		return banger.Stats{}, stateError("see the stats of", vm, "start it: banger start "+vm.Name)
	}
	st, err := g.s.shim(vm.ID).Stats(ctx)
	if err != nil {
		return banger.Stats{}, banger.Errorf(banger.CodeUnavailable, "cannot read the stats of VM %s: %w", vm.Name, err)
	}
	use, err := st.VMM.Usage()
	if err != nil {
		return banger.Stats{}, banger.Errorf(banger.CodeConflict, "VM %s has just ended: %w", vm.Name, err)
	}
	got := banger.Stats{ID: vm.ID, Name: vm.Name, At: time.Now().UTC(), CPUTime: use.CPUTime, CPUs: vm.Spec.CPUs,
		Memory: use.Memory, MemoryLimit: vm.Spec.Memory,
		DiskRead: st.Stats.DiskRead, DiskWritten: st.Stats.DiskWritten, NetIn: st.Stats.NetIn, NetOut: st.Stats.NetOut}
	if g.s.networks.Bridge != nil && banger.OnBridge(vm.Spec.Network) {
		got.NetIn, got.NetOut, err = g.s.networks.Bridge.Traffic(vm.ID)
	}
	return got, err
}
