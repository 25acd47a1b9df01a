package supervisor

import (
	"context"
	"errors"
	"time"

	"banger"
	"banger/internal/reserve"
	"banger/internal/store"
	"banger/internal/vmdir"
)

// storeAgain is when a row is stored again of which the database could not say whether it is stored.
const storeAgain = 5 * time.Second

// store writes the VM's row, and its record if that has changed. Only the owner calls it. After an error of the disk nobody
// knows what the row says, so the owner writes what is true then until it succeeds. A record that cannot be written is
// written with the next row: the row is what counts.
func (m *machine) store(ctx context.Context, vm banger.VM) error {
	m.again = nil
	if err := m.s.opts.Reserve.Retry(func() error { return m.s.opts.Store.Update(ctx, vm) }); err != nil {
		if banger.CodeOf(err) == banger.CodeInternal {
			m.again = time.After(storeAgain)
		}
		return storing(err, m.s.opts.StateDir)
	}
	m.record(vm)
	return nil
}

// commit is store for a VM that is complete now.
func (m *machine) commit(ctx context.Context) error {
	vm := m.snapshot()
	if err := m.s.opts.Store.Commit(ctx, vm); err != nil {
		return storing(err, m.s.opts.StateDir)
	}
	m.mu.Lock()
	m.committed = true
	m.mu.Unlock()
	m.record(vm)
	return nil
}

// record writes the VM's record, if the VM is complete. What fails is written with the next row.
func (m *machine) record(vm banger.VM) {
	if m.isCommitted() {
		m.recorder.Write(vmdir.NewRecord(vm, m.slot))
	}
}

// storing gives the errors of a database on a full or broken disk their codes.
func storing(err error, dir string) error {
	if banger.CodeOf(err) != banger.CodeInternal {
		return err
	}
	if errors.Is(err, store.ErrDisk) {
		return banger.Errorf(banger.CodeDisk, "the disk of %s failed: %w", dir, err).WithHint("see the kernel's log: dmesg")
	}
	return reserve.Explain(err, dir)
}
