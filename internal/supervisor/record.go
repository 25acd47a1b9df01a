package supervisor

import (
	"context"
	"time"

	"banger"
	"banger/internal/store"
	"banger/internal/vmdir"
)

// storeAgain is the time after which a row is stored again if it is unknown whether it was stored.
const storeAgain = 5 * time.Second

// store writes the VM's row, and its record if that has changed. Only the owner calls it. After an error of the disk
// the content of the row is unknown, so the owner repeats the write, with the VM as it then is, until it succeeds. A
// record that cannot be written is written with the next row, because the row is what counts.
func (m *machine) store(ctx context.Context, vm banger.VM) error {
	m.again, vm.Due = nil, nil
	if err := m.s.opts.Reserve.Retry(func() error { return m.s.opts.Store.Update(ctx, vm) }); err != nil {
		if banger.CodeOf(err) == banger.CodeInternal {
			m.again = time.After(storeAgain)
		}
		return store.Explain(err, m.s.opts.StateDir)
	}
	m.record(vm)
	return nil
}

// commit is like store, and records that the VM is complete.
func (m *machine) commit(ctx context.Context) error {
	vm := m.Snapshot()
	if err := m.s.opts.Store.Commit(ctx, vm); err != nil {
		return store.Explain(err, m.s.opts.StateDir)
	}
	m.SetCommitted()
	m.record(vm)
	return later{m}.settle(ctx, false)
}

// record writes the VM's record, if the VM is complete. After a failure, the record is written with the next row.
func (m *machine) record(vm banger.VM) {
	if m.IsCommitted() {
		m.warn("the record was not written", m.recorder.Write(vmdir.NewRecord(vm, m.slot)))
	}
}
