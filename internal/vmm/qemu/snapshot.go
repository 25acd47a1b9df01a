package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/vmm"
	"banger/internal/vmm/pagemap"
)

// stateSet is the number of the set of descriptors by which QEMU gets the file of the state. The sets of the drives
// have lower numbers.
const stateSet = 1000

// manifestOf describes c. The manifest has QEMU's version: it pins the machine type, and what QEMU
// emulates changes with each version.
func manifestOf(c vmm.Config, v version) (vmm.Manifest, error) {
	m, err := vmm.NewManifest(Driver{}.Name(), v.text, c)
	m.CPUModel = cpu(c)
	return m, err
}

// checkSnapshot returns an error if c does not fit the snapshot, and else the number of the VM's spare ports. It runs
// before anything is started.
func (d Driver) checkSnapshot(c vmm.Config, v version) (spares int, err error) {
	if c.Nested {
		return 0, vmm.ErrNestedSnapshot
	}
	had, err := vmm.ManifestOf(c)
	if err != nil {
		return 0, err
	}
	has, err := manifestOf(c, v)
	if err != nil {
		return 0, err
	}
	return had.SparesUpTo(sparePorts), had.Match(has)
}

// Snapshot has QEMU write the state of its devices to a file (xen-save-devices-state, which needs nothing of Xen). It
// writes the memory itself, as docs/adr/0051 says.
func (p *process) Snapshot(ctx context.Context, dir string) error {
	commit, err := p.WriteDown(ctx, dir)
	if err == nil {
		err = commit()
	}
	return err
}

// WriteDown implements vmm.Overlayer.
func (p *process) WriteDown(ctx context.Context, dir string) (commit func() error, err error) {
	var m vmm.Manifest
	err = vmm.TakeSnapshot(dir, func() error {
		m, err = p.writeDown(ctx, dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() error { return vmm.CompleteSnapshot(dir, m) }, nil
}

func (p *process) writeDown(ctx context.Context, dir string) (vmm.Manifest, error) {
	if p.config.Nested {
		return vmm.Manifest{}, vmm.ErrNestedSnapshot
	}
	m, err := manifestOf(p.config, p.version)
	if err != nil {
		return m, err
	}
	m.Spares = p.spares
	if err := p.wantPaused(ctx); err != nil {
		return m, err
	}
	if err := p.writeState(ctx, filepath.Join(dir, vmm.SnapshotState)); err != nil {
		return m, err
	}
	return m, p.writeMemory(ctx, filepath.Join(dir, vmm.SnapshotRAM))
}

// wantPaused returns an error if the VM runs: a copy of changing memory would not be consistent.
func (p *process) wantPaused(ctx context.Context) error {
	running, err := p.running(ctx)
	if err == nil && running {
		err = errors.New("the VM is not paused")
	}
	return err
}

func (p *process) running(ctx context.Context) (bool, error) {
	var status struct{ Running bool }
	data, err := p.monitor.query(ctx, "query-status", nil, nil)
	if err == nil {
		err = json.Unmarshal(data, &status)
	}
	return status.Running, err
}

// writeState writes the state of the devices to a new file. QEMU keeps its drives (live), so the VM can go on.
func (p *process) writeState(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.withFile(ctx, f, "xen-save-devices-state", map[string]any{"live": false})
}

// writeMemory writes the memory to a new file. What a restored guest has not changed is in the file of its snapshot.
func (p *process) writeMemory(ctx context.Context, path string) error {
	if err := vmm.CopyFile(ctx, p.memory, path); err != nil || !p.maps {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.Do(func() error { return pagemap.Copy(ctx, p.Handle(), p.memory, f) })
}

// withFile runs a command that takes the name of a file, and gives QEMU the descriptor f for it.
func (p *process) withFile(ctx context.Context, f *os.File, command string, args map[string]any) error {
	set := map[string]any{"fdset-id": stateSet}
	if _, err := p.monitor.query(ctx, "add-fd", set, f); err != nil {
		return err
	}
	args["filename"] = fmt.Sprintf("/dev/fdset/%d", stateSet)
	return errors.Join(p.monitor.execute(ctx, command, args), p.monitor.execute(ctx, "remove-fd", set))
}

// restore reads the state of the devices as an incoming migration and lets the guest continue. The memory is there
// already.
func (p *process) restore(ctx context.Context) error {
	f, err := vmm.StateOf(p.config)
	if err != nil {
		return err
	}
	defer f.Close()
	events := map[string]any{"capability": "events", "state": true} // says when the migration ends
	err = p.monitor.execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": []any{events}})
	if err == nil {
		_, err = p.monitor.query(ctx, "getfd", map[string]any{"fdname": "state"}, f)
	}
	if err == nil {
		err = p.monitor.execute(ctx, "migrate-incoming", map[string]any{"uri": "fd:state"})
	}
	if err != nil {
		return err
	}
	if err := p.monitor.awaitMigration(ctx); err != nil {
		return fmt.Errorf("restoring the snapshot: %w", err)
	}
	if _, err := p.config.Resume(); err != nil {
		return err
	}
	return p.command(ctx, "cont")
}
