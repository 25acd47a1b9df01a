// Package recovery makes the rows of VMs again after the database was lost, from the records beside their directories.
// No daemon may use the state directory meanwhile. It must not start or stop a VM.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/shim"
	"banger/internal/store"
	"banger/internal/vmdir"
)

// Found is what Recover found of one VM.
type Found struct {
	ID, Name string
	Dir      string // where its disk is
	Problem  error  // why it still has no row; nil if it has one again
}

// HasVMs reports whether there are directories of VMs below a state directory.
func HasVMs(dir string) bool {
	lost, _ := vmdir.Dirs{State: dir}.Unknown(nil)
	return len(lost) > 0
}

// Recover makes rows for VMs that have a directory in dir but no readable row. dir is a state directory that no
// daemon uses. It looks in vms and in the directories that were set aside. What it cannot recover stays where it is.
// With old, the rows come from an older copy: records take precedence over rows, and rows without a directory are
// deleted. argv is the command that starts shims.
func Recover(ctx context.Context, db *store.Store, dir string, argv []string, old bool) (found []Found, err error) {
	d := vmdir.Dirs{State: dir}
	rows, err := db.List(ctx)
	if err != nil {
		return nil, err
	}
	runs := map[string]bool{}
	running := shim.Processes{VMs: d.VMs(), Argv: argv}
	if err := running.Each(func(id string, _ int) { runs[id] = true }); err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, r := range rows {
		have[r.VM.ID] = r.Broken == nil
		if _, err := os.Lstat(d.VM(r.VM.ID)); old && errors.Is(err, fs.ErrNotExist) {
			if err := db.Delete(ctx, r.VM.ID); err != nil {
				return nil, err
			}
		} else if _, err := vmdir.ReadRecord(d.VMs(), r.VM.ID); old && err == nil {
			have[r.VM.ID] = false
		}
	}
	for _, from := range []string{d.VMs(), d.Lost()} {
		entries, err := os.ReadDir(from)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return found, err
		}
		for _, e := range entries {
			id := e.Name()
			if !banger.ValidID(id) || have[id] {
				continue
			}
			r := recoverOne(ctx, db, d, from, id, runs[id])
			have[id] = r.Problem == nil
			found = append(found, r)
		}
	}
	return found, nil
}

func recoverOne(ctx context.Context, db *store.Store, d vmdir.Dirs, from, id string, runs bool) Found {
	found := Found{ID: id, Dir: filepath.Join(from, id)}
	r, err := vmdir.ReadRecord(from, id)
	if err != nil {
		found.Problem = fmt.Errorf("it has no record that can be read: %w", err)
		return found
	}
	r.VM.State, r.VM.Reason = banger.StateStopped, "its row was lost, and recovered"
	if runs {
		r.VM.State = banger.StateRunning
	}
	if from != d.VMs() {
		if err := d.PutBack(id); err != nil {
			found.Problem = err
			return found
		}
		found.Dir = d.VM(id)
	}
	err = db.Insert(ctx, store.Row{VM: r.VM, Slot: r.Slot})
	if banger.CodeOf(err) == banger.CodeConflict { // another VM has the name now
		r.VM.Name += "-" + id
		err = db.Insert(ctx, store.Row{VM: r.VM, Slot: r.Slot})
	}
	found.Name, found.Problem = r.VM.Name, err
	return found
}
