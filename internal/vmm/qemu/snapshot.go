package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// migrationSpeed in bytes per second is so high that it is no limit. With the default, a snapshot
// of little memory would take seconds.
const migrationSpeed = 64 << 30

func (p *process) manifest() (vmm.Manifest, error) { return manifestOf(p.config, p.version) }

// manifestOf describes c. The manifest has QEMU's version: it pins the machine type, and what QEMU
// emulates changes with each version.
func manifestOf(c vmm.Config, v version) (vmm.Manifest, error) {
	m, err := vmm.NewManifest(Driver{}.Name(), v.text, c)
	m.CPUModel = cpu(c)
	return m, err
}

// checkSnapshot returns an error if c does not fit the snapshot. It runs before anything is
// started.
func (d Driver) checkSnapshot(c vmm.Config, v version) error {
	if c.Nested {
		return vmm.ErrNestedSnapshot
	}
	had, err := vmm.ReadManifest(c.Restore)
	if err != nil {
		return err
	}
	has, err := manifestOf(c, v)
	if err != nil {
		return err
	}
	return had.Match(has)
}

// Snapshot writes the state by a migration to a file. The migration leaves out memory that is
// already in a file (x-ignore-shared), and Snapshot copies that file.
func (p *process) Snapshot(ctx context.Context, dir string) error {
	return vmm.TakeSnapshot(dir, func() error { return p.writeDown(ctx, dir) })
}

func (p *process) writeDown(ctx context.Context, dir string) error {
	if p.config.Nested {
		return vmm.ErrNestedSnapshot
	}
	m, err := p.manifest()
	if err != nil {
		return err
	}
	if err := p.wantPaused(ctx); err != nil {
		return err
	}
	if p.shared {
		err = p.migrate(ctx, filepath.Join(dir, vmm.SnapshotState), true)
		if err == nil {
			err = vmm.CopyFile(ctx, p.memory, filepath.Join(dir, vmm.SnapshotRAM))
		}
	} else {
		err = p.convert(ctx, dir)
	}
	if err != nil {
		return err
	}
	return vmm.CommitSnapshot(dir, m)
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
	status, err := p.status(ctx)
	return status.Running, err
}

// status is QEMU's answer to query-status.
type status struct {
	Running bool
	Status  string // says why the guest does not run, if it does not
}

func (p *process) status(ctx context.Context) (s status, err error) {
	data, err := p.monitor.query(ctx, "query-status", nil, nil)
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	return s, err
}

// migrate writes the state to a new file, with all memory unless shared is set.
func (p *process) migrate(ctx context.Context, path string, shared bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.migrateTo(ctx, f, shared, nil)
}

// migrateTo writes the state to f, until it is written, ctx ends or reader is closed.
func (p *process) migrateTo(ctx context.Context, f *os.File, shared bool, reader <-chan struct{}) error {
	if err := p.openMigration(ctx, f, shared); err != nil {
		return err
	}
	f.Close() // QEMU's copy is the last one
	if err := p.monitor.execute(ctx, "migrate", map[string]any{"uri": "fd:state"}); err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	if reader != nil {
		go func() { // ends with within
			select {
			case <-reader:
				cancel()
			case <-within.Done():
			}
		}()
	}
	err := p.monitor.awaitMigration(within)
	if err != nil && within.Err() != nil {
		again, stop := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
		defer stop()
		if p.command(again, "migrate_cancel") == nil {
			p.monitor.awaitMigration(again) // so that its end is not taken for the end of the next migration
		}
		p.settle(again)
		return err
	}
	return errors.Join(err, p.settle(ctx))
}

// settle waits until QEMU has finished with a migration that has ended. Before that, QEMU does not
// let the guest continue.
func (p *process) settle(ctx context.Context) error {
	for {
		status, err := p.status(ctx)
		if err != nil || status.Status != "finish-migrate" {
			return err
		}
		select {
		case <-time.After(time.Millisecond): // there is no event for that
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// restore reads the state and lets the guest continue.
func (p *process) restore(ctx context.Context) error {
	f, err := untrusted.Open(filepath.Join(p.config.Restore, vmm.SnapshotState), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.openMigration(ctx, f, true); err != nil {
		return err
	}
	if err := p.monitor.execute(ctx, "migrate-incoming", map[string]any{"uri": "fd:state"}); err != nil {
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

// openMigration sets the options of a migration and sends the file, which QEMU then knows as
// "state".
func (p *process) openMigration(ctx context.Context, f *os.File, shared bool) error {
	p.monitor.beginMigration()
	capability := func(name string, on bool) map[string]any { return map[string]any{"capability": name, "state": on} }
	err := p.monitor.execute(ctx, "migrate-set-capabilities",
		map[string]any{"capabilities": []any{capability("x-ignore-shared", shared), capability("events", true)}})
	if err == nil {
		err = p.monitor.execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(migrationSpeed)})
	}
	if err == nil {
		_, err = p.monitor.query(ctx, "getfd", map[string]any{"fdname": "state"}, f)
	}
	return err
}
