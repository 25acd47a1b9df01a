package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/reserve"
	"banger/internal/store"
)

// record is what is kept of a VM beside its directory, so that its row can be made again if the database is lost. The directory
// itself may belong to the VM's user, and then nothing in it is believed.
type record struct {
	Slot int       `json:"slot"`
	VM   banger.VM `json:"vm"`
}

// recordSize bounds a record in bytes.
const recordSize = 16 << 20

func recordPath(dir, id string) string { return filepath.Join(dir, id+".json") }

// recordOf leaves out what is true only while a VM runs.
func recordOf(vm banger.VM, slot int) record {
	vm.State, vm.Reason, vm.StartedAt, vm.FinishedAt, vm.ExitCode = banger.StateStopped, "", time.Time{}, time.Time{}, nil
	vm.Address, vm.Forwards, vm.Limits, vm.Timings = "", nil, nil, nil
	return record{slot, vm}
}

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

func (m *machine) record(vm banger.VM) {
	if !m.isCommitted() {
		return
	}
	data, err := json.Marshal(recordOf(vm, m.slot))
	if err != nil || bytes.Equal(data, m.recorded) {
		return
	}
	err = blob.WriteFile(recordPath(m.s.vmsDir(), vm.ID), 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
	if err == nil {
		m.recorded = data
	}
}

// readRecord reads the record of a VM in dir.
func readRecord(dir, id string) (r record, err error) {
	f, err := os.Open(recordPath(dir, id))
	if err != nil {
		return r, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, recordSize)).Decode(&r); err != nil {
		return r, err
	}
	if r.VM.ID != id {
		return r, errors.New("the record is of another VM")
	}
	return r, nil
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

// lostDir is where what no row claims is set aside.
func (s *Supervisor) lostDir() string { return filepath.Join(s.opts.StateDir, "lost") }

func (s *Supervisor) vmsDir() string { return filepath.Join(s.opts.StateDir, "vms") }

// setAside moves the directory of a VM that no row claims, and its record, out of the way. Nothing of it is removed.
func (s *Supervisor) setAside(id string) error {
	if err := os.MkdirAll(s.lostDir(), 0o700); err != nil {
		return err
	}
	name := id
	for n := 2; ; n++ {
		if _, err := os.Lstat(filepath.Join(s.lostDir(), name)); errors.Is(err, fs.ErrNotExist) {
			break
		}
		name = fmt.Sprintf("%s-%d", id, n)
	}
	if err := os.Rename(s.stateDir(id), filepath.Join(s.lostDir(), name)); err != nil {
		return err
	}
	err := os.Rename(recordPath(s.vmsDir(), id), recordPath(s.lostDir(), name))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, blob.Sync(s.lostDir()), blob.Sync(s.vmsDir()))
}

// Recovered is what Recover has found of one VM.
type Recovered struct {
	ID, Name string
	Dir      string // where its disk is
	Problem  error  // why it has no row; nil: it has one again
}

// HasVMs returns true if there are directories of VMs below a state directory.
func HasVMs(dir string) bool {
	s := &Supervisor{opts: Options{StateDir: dir}}
	lost, _ := s.findLost(nil, nil)
	return len(lost) > 0
}

// Recover makes rows again of VMs whose directories are in dir, a state directory that no daemon has, and that have no row which
// can be read: those below vms, and those that were set aside. What cannot be recovered stays where it is. With old the
// rows are those of an older copy: records count more, and rows without a directory are left out. argv is how shims are started.
func Recover(ctx context.Context, db *store.Store, dir string, argv []string, old bool) (found []Recovered, err error) {
	s := &Supervisor{opts: Options{StateDir: dir}}
	rows, err := db.List(ctx)
	if err != nil {
		return nil, err
	}
	runs := map[string]bool{}
	if err := eachShim(dir, argv, func(id string, _ int) { runs[id] = true }); err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, r := range rows {
		have[r.VM.ID] = r.Broken == nil
		if _, err := os.Lstat(s.stateDir(r.VM.ID)); old && errors.Is(err, fs.ErrNotExist) {
			if err := db.Delete(ctx, r.VM.ID); err != nil {
				return nil, err
			}
		} else if _, err := readRecord(s.vmsDir(), r.VM.ID); old && err == nil {
			have[r.VM.ID] = false
		}
	}
	for _, from := range []string{s.vmsDir(), s.lostDir()} {
		entries, err := os.ReadDir(from)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return found, err
		}
		for _, e := range entries {
			id := e.Name()
			if !banger.ValidID(id) || have[id] {
				continue
			}
			r := s.recoverOne(ctx, db, from, id, runs[id])
			have[id] = r.Problem == nil
			found = append(found, r)
		}
	}
	return found, nil
}

func (s *Supervisor) recoverOne(ctx context.Context, db *store.Store, from, id string, runs bool) Recovered {
	found := Recovered{ID: id, Dir: filepath.Join(from, id)}
	r, err := readRecord(from, id)
	if err != nil {
		found.Problem = fmt.Errorf("it has no record that can be read: %w", err)
		return found
	}
	r.VM.State, r.VM.Reason = banger.StateStopped, "its row was lost, and recovered"
	if runs {
		r.VM.State = banger.StateRunning
	}
	if from != s.vmsDir() {
		if err := s.putBack(id); err != nil {
			found.Problem = err
			return found
		}
		found.Dir = s.stateDir(id)
	}
	err = db.Insert(ctx, store.Row{VM: r.VM, Slot: r.Slot})
	if banger.CodeOf(err) == banger.CodeConflict { // another VM has its name now
		r.VM.Name += "-" + id
		err = db.Insert(ctx, store.Row{VM: r.VM, Slot: r.Slot})
	}
	found.Name, found.Problem = r.VM.Name, err
	return found
}

// putBack is the reverse of setAside.
func (s *Supervisor) putBack(id string) error {
	if _, err := os.Lstat(s.stateDir(id)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists", s.stateDir(id))
	}
	err := os.Rename(filepath.Join(s.lostDir(), id), s.stateDir(id))
	if err == nil {
		err = os.Rename(recordPath(s.lostDir(), id), recordPath(s.vmsDir(), id))
	}
	return errors.Join(err, blob.Sync(s.vmsDir()), blob.Sync(s.lostDir()))
}
