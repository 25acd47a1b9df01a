// Package access gives clients the inside of running VMs: commands, files, SSH, consoles, workspaces and resource use.
// It must not know how a VM came to run, nor how the disk of one at rest is read, and it changes no VM.
package access

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/history"
	"banger/internal/image"
	"banger/internal/network/bridge"
	"banger/internal/output"
	"banger/internal/resolve"
	"banger/internal/secret"
	"banger/internal/shim"
)

// VMs are the VMs of a daemon.
type VMs interface {
	// Get returns the VM that ref names: a name, an id, or a unique prefix of an id.
	Get(ref string) (banger.VM, error)
	// Shim returns a client of the shim of the VM with this id.
	Shim(id string) shim.Client
	// Agent returns a client of a VM's agent.
	Agent(id string) guest.Client
	// Offering returns a client of a VM's agent whose streams can be given to another process.
	Offering(id string) guest.Client
	// OfferingMain is like Offering, for a stream whose client also gets the main command's output.
	OfferingMain(id string) guest.Client
	// Wake lets a suspended VM go on, and returns it. Callers at the same time share one resume.
	Wake(ctx context.Context, id string) (banger.VM, error)
	// AttachMain starts a VM's main command with the terminal settings of e. The caller owns the stream.
	AttachMain(ctx context.Context, id string, e banger.Exec) (net.Conn, error)
}

// Guests gives access to the inside of running VMs.
type Guests struct {
	VMs    VMs
	Images *image.Store // for the defaults of commands
	Bridge *bridge.Host // counts the traffic of VMs on bridges; nil without bridges
}

// Exec opens the stream of a command in a VM, which it wakes if it is suspended. For the main command it uses only the
// terminal settings of e. Fields that are empty in e come from the image and the VM's spec. The caller owns the stream
// and copies its frames.
func (g Guests) Exec(ctx context.Context, ref string, e banger.Exec) (net.Conn, error) {
	vm, def, err := g.awake(ctx, ref, "run a command in")
	if err != nil {
		return nil, err
	}
	if e.Main {
		return g.VMs.AttachMain(ctx, vm.ID, e)
	}
	e.Env = resolve.MergeEnv(def.Env, e.Env)
	if e.Dir == "" {
		e.Dir, e.Workspace = def.Dir, e.Workspace || def.Workspace
	}
	if e.User == "" {
		e.User = def.User
	}
	if err := cmp.Or(e.Check(), secret.Wanted(vm, e.Secrets)); err != nil {
		return nil, err
	}
	return g.VMs.Offering(vm.ID).Exec(ctx, e)
}

// awake is like running, but lets a suspended VM go on first, unless the VM's spec forbids that.
func (g Guests) awake(ctx context.Context, ref, what string) (banger.VM, banger.Exec, error) {
	vm, err := g.VMs.Get(ref)
	if err == nil && vm.Wakes() {
		vm, err = g.VMs.Wake(ctx, vm.ID)
	}
	if err != nil {
		return vm, banger.Exec{}, err
	}
	return g.running(vm.ID, what)
}

// running finds a running VM and the defaults of its commands. what names the operation, for the error.
func (g Guests) running(ref, what string) (banger.VM, banger.Exec, error) {
	vm, err := g.VMs.Get(ref)
	if err != nil {
		return vm, banger.Exec{}, err
	}
	if vm.State != banger.StateRunning {
		return vm, banger.Exec{}, vm.NotRunning(what)
	}
	img, err := g.Images.Get(vm.ImageDigest)
	if err != nil {
		return vm, banger.Exec{}, err
	}
	return vm, resolve.Defaults(vm.Spec, img), nil
}

// Logs writes the guest's console output: its last tail lines (all if tail is negative) and, with follow, new output
// until the VM or ctx ends.
func (g Guests) Logs(ctx context.Context, ref string, tail int, follow bool, w io.Writer) error {
	vm, err := g.VMs.Get(ref)
	if err != nil {
		return err
	}
	c := g.VMs.Shim(vm.ID)
	begin(w)
	if follow && !vm.State.AtRest() {
		if err := c.FollowConsole(ctx, tail, w); err == nil || ctx.Err() != nil {
			return nil
		}
	}
	return shim.ReadConsole(c.Dir, tail, w)
}

// Output writes what v selects of what the VM's main command has written, as frames of frame.Stdout and frame.Stderr,
// and of frame.Stamp if v wants them. It returns false, and writes nothing, for a VM whose output is on its console
// alone: one without a main command, whose own init writes there, and one that has not booted since banger keeps the
// output.
//
// While a shim of an earlier banger runs the VM, a view that follows gets no stamps, and all times and positions.
func (g Guests) Output(ctx context.Context, ref string, v banger.LogView, w io.Writer) (bool, error) {
	vm, err := g.VMs.Get(ref)
	if err != nil {
		return false, err
	}
	c := g.VMs.Shim(vm.ID)
	path := shim.OutputPath(c.Dir)
	if vm.Main == nil || !output.Exists(path) {
		return false, nil
	}
	begin(w)
	if v.Follow && !vm.State.AtRest() {
		if err := c.FollowOutput(ctx, v, w); err == nil || ctx.Err() != nil {
			return true, nil
		}
	}
	return true, output.Read(path, v, w)
}

// begin writes nothing to w, which begins an answer whose first byte may come late. A failure shows at the next write.
func begin(w io.Writer) { w.Write(nil) }

// Files opens the stream of a copy from or to a running VM. It carries frames of a tar and the agent's report, as
// OpArchive and OpExtract of package guest describe. The caller owns the stream and copies its frames.
func (g Guests) Files(ctx context.Context, ref string, r banger.FileRequest) (net.Conn, error) {
	id, err := g.forFiles(ctx, ref, &r)
	if err != nil {
		return nil, err
	}
	return g.VMs.Offering(id).Files(ctx, r)
}

// StatFile describes the file at a path of a running VM, or lists a directory, as r.Op says.
func (g Guests) StatFile(ctx context.Context, ref string, r banger.FileRequest) (banger.FileInfo, error) {
	id, err := g.forFiles(ctx, ref, &r)
	if err != nil {
		return banger.FileInfo{}, err
	}
	return g.VMs.Agent(id).StatFile(ctx, r)
}

// forFiles returns the id of a VM, which it wakes. It resolves a relative path in r from the directory in which the
// VM's commands start.
func (g Guests) forFiles(ctx context.Context, ref string, r *banger.FileRequest) (id string, err error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	vm, def, err := g.awake(ctx, ref, "copy files of")
	if err != nil {
		return "", err
	}
	r.Resolve(def.Dir)
	return vm.ID, nil
}

// SSH opens a stream to the SSH server of a running VM's agent, which accepts the keys of r. The caller owns the
// stream.
func (g Guests) SSH(ctx context.Context, ref string, r banger.SSH) (net.Conn, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	vm, def, err := g.awake(ctx, ref, "connect to")
	if err != nil {
		return nil, err
	}
	r.Env = resolve.MergeEnv(def.Env, r.Env)
	return g.VMs.Offering(vm.ID).SSH(ctx, r)
}

// Processes returns the processes of a running VM, as its guest tells them.
func (g Guests) Processes(ctx context.Context, ref string) ([]banger.Process, error) {
	vm, _, err := g.running(ref, "see the processes of")
	if err != nil {
		return nil, err
	}
	return g.VMs.Agent(vm.ID).Processes(ctx)
}

// Changes returns the changes of a running VM to its image as a tar, which the caller must close.
func (g Guests) Changes(ctx context.Context, ref string) (banger.VM, io.ReadCloser, error) {
	vm, err := g.VMs.Get(ref)
	if err != nil {
		return vm, nil, err
	}
	if vm.State != banger.StateRunning {
		return vm, nil, vm.NotRunning("commit")
	}
	changes, err := g.VMs.Agent(vm.ID).Changes(ctx)
	return vm, changes, err
}

// Stats returns what a running VM has used since its start.
func (g Guests) Stats(ctx context.Context, ref string) (banger.Stats, error) {
	s, err := g.Sample(ctx, ref)
	return s.Stats, err
}

// Sample returns the Stats of a running VM and which VMM has counted them. It asks the shim and the VMM, and not the
// guest. It wakes no VM, and it does not count as use of the VM.
func (g Guests) Sample(ctx context.Context, ref string) (got history.Sample, err error) {
	vm, err := g.VMs.Get(ref)
	if err != nil {
		return got, err
	}
	if vm.State != banger.StateRunning && vm.State != banger.StatePaused {
		return got, vm.NotRunning("see the stats of")
	}
	st, err := g.VMs.Shim(vm.ID).Stats(ctx)
	if err != nil {
		return got, banger.Errorf(banger.CodeUnavailable, "cannot read the stats of VM %s: %w", vm.Name, err)
	}
	use, err := st.VMM.Usage()
	if err != nil {
		return got, banger.Errorf(banger.CodeConflict, "VM %s has just ended: %w", vm.Name, err)
	}
	got.Process = fmt.Sprint(st.VMM)
	got.Stats = banger.Stats{ID: vm.ID, Name: vm.Name, At: time.Now().UTC(), CPUTime: use.CPUTime, CPUs: vm.Spec.CPUs,
		Memory: use.Memory, MemoryLimit: vm.Spec.Memory,
		DiskRead: st.Stats.DiskRead, DiskWritten: st.Stats.DiskWritten, NetIn: st.Stats.NetIn, NetOut: st.Stats.NetOut}
	if g.Bridge != nil && banger.OnBridge(vm.Spec.Network) {
		got.NetIn, got.NetOut, err = g.Bridge.Traffic(vm.ID)
	}
	return got, err
}
