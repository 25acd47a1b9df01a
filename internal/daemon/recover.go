package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/recovery"
	"banger/internal/store"
)

// copies is the number of copies of the database that are kept.
const copies = 3

func databasePath(stateDir string) string { return filepath.Join(stateDir, "banger.db") }

// copyPath returns the path of a copy from a good start. Copy 0 is the newest.
func copyPath(stateDir string, n int) string {
	return fmt.Sprintf("%s.copy-%d", databasePath(stateDir), n)
}

// openStore opens the database. If it is damaged, the error says what to do.
func openStore(ctx context.Context, stateDir string) (*store.Store, error) {
	db, err := store.Open(ctx, databasePath(stateDir))
	if errors.Is(err, store.ErrDamaged) {
		return nil, banger.Errorf(banger.CodeDisk, "the database cannot be used, and nothing was changed: %w", err).
			WithHint("put a good one in its place, or let `banger recover` take the last copy and the VMs' own records")
	}
	return db, err
}

// keepCopy copies the database after a good start, unless the newest copy has the same content.
func keepCopy(ctx context.Context, db *store.Store, stateDir string) error {
	next := databasePath(stateDir) + ".copy"
	if err := db.CopyTo(ctx, next); err != nil {
		return err
	}
	if same, err := sameContents(next, copyPath(stateDir, 0)); err != nil || same {
		return errors.Join(err, os.Remove(next))
	}
	for n := copies - 1; n > 0; n-- {
		if err := os.Rename(copyPath(stateDir, n-1), copyPath(stateDir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(next, copyPath(stateDir, 0))
}

// sameContents reports whether two files have the same content. The second may be absent. It reads whole files,
// because databases are small.
func sameContents(a, b string) (bool, error) {
	x, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	y, err := os.ReadFile(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return string(x) == string(y), err
}

// Recover rebuilds the rows of VMs while no daemon runs. It replaces a damaged or empty database with the last good
// copy, and makes a row for each VM that has none from the record beside the VM's directory. It reports on w what it
// does. It deletes nothing: a file that it replaces gets another name.
func Recover(ctx context.Context, o Options, w io.Writer) error {
	release, err := own(o)
	if err != nil {
		return err
	}
	defer release()
	db, replaced, err := usable(ctx, o.StateDir, w)
	if err != nil {
		return err
	}
	defer db.Close()
	found, err := recovery.Recover(ctx, db, o.StateDir, shimArgv, replaced)
	left := 0
	for _, r := range found {
		if r.Problem != nil {
			left++
			fmt.Fprintf(w, "VM %s in %s has no row: %v\n", r.ID, r.Dir, r.Problem)
			continue
		}
		fmt.Fprintf(w, "VM %s (%s) has its row again\n", r.Name, r.ID)
	}
	switch {
	case err != nil:
		return err
	case left > 0:
		return banger.Errorf(banger.CodeConflict, "%d VMs could not be recovered", left).
			WithHint("their disks are in the directories that are named above")
	case len(found) == 0:
		fmt.Fprintln(w, "each VM has its row")
	}
	return nil
}

// usable opens the database. If the database is damaged, or has no VM although VMs exist, usable replaces it with a
// copy that has some, or else with an empty database.
func usable(ctx context.Context, stateDir string, w io.Writer) (db *store.Store, replaced bool, err error) {
	known, err := rowsIn(ctx, databasePath(stateDir))
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return nil, false, err
	}
	if err == nil && (known > 0 || !recovery.HasVMs(stateDir)) {
		db, err = store.Open(ctx, databasePath(stateDir))
		return db, false, err
	}
	aside := fmt.Sprintf("%s.%s", databasePath(stateDir), time.Now().UTC().Format("20060102-150405"))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(databasePath(stateDir)+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, false, err
		}
	}
	fmt.Fprintf(w, "the database that was there is %s now\n", aside)
	for n := range copies {
		path := copyPath(stateDir, n)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		rows, err := rowsIn(ctx, path)
		if err == nil && rows > 0 {
			err = copyDatabase(ctx, path, databasePath(stateDir))
		}
		if err != nil {
			fmt.Fprintf(w, "the copy %s cannot be used: %v\n", path, err)
		} else if rows > 0 {
			fmt.Fprintf(w, "the copy %s takes its place\n", path)
			break
		}
	}
	db, err = store.Open(ctx, databasePath(stateDir))
	return db, true, err
}

// rowsIn returns the number of VMs in a database.
func rowsIn(ctx context.Context, path string) (int, error) {
	db, err := store.Open(ctx, path)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	rows, err := db.List(ctx)
	return len(rows), err
}

func copyDatabase(ctx context.Context, from, to string) error {
	db, err := store.Open(ctx, from)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.CopyTo(ctx, to)
}
