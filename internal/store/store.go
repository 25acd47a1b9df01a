// Package store keeps VMs in SQLite. It converts rows to nouns and back, and holds the constraints that must survive
// a crash: unique names and slots. It must not know what a VM's state means or touch anything else on the host.
package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"modernc.org/sqlite" // registers "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger"
	"banger/internal/blob"
)

//go:embed migration/*.sql
var migrations embed.FS

// MinSQLite is the first SQLite version without the WAL-reset race, which could lose or corrupt data with two
// connections (sqlite.org/wal.html#walresetbug).
var MinSQLite = [3]int{3, 51, 3}

// Store is an open database. Its methods may be called concurrently.
type Store struct{ db *sql.DB }

// Row is a VM with data that only the store has.
type Row struct {
	VM        banger.VM
	Slot      int
	Committed bool // false while the VM is being made or removed
	// Broken says why the document cannot be read. VM then has only its ID and Name.
	Broken error
}

// ErrDamaged means that a file is not a complete SQLite database.
var ErrDamaged = errors.New("the database is damaged")

// Open opens or creates the database at path and migrates it. It rejects a database of a later banger without
// changing it. The error wraps ErrDamaged when SQLite finds the file damaged.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := protect(path); err != nil {
		return nil, err
	}
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "busy_timeout(10000)",
		"journal_size_limit(16777216)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one connection, because there is one writer and reads are short
	s := &Store{db: db}
	if err := s.prepare(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening %s: %w", path, damage(err))
	}
	return s, nil
}

// protect sets the mode of the database's files to this user alone before SQLite opens them. SQLite gives its log and
// its shared memory the mode of the database.
func protect(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer f.Close()
	err = f.Chmod(0o600)
	for _, suffix := range []string{"-wal", "-shm"} {
		if cerr := os.Chmod(path+suffix, 0o600); !errors.Is(cerr, fs.ErrNotExist) {
			err = errors.Join(err, cerr)
		}
	}
	if err != nil {
		return fmt.Errorf("protecting %s: %w", path, err)
	}
	return nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

func (s *Store) prepare(ctx context.Context) error {
	v, err := s.SQLiteVersion(ctx)
	if err != nil {
		return err
	}
	if err := checkSQLite(v); err != nil {
		return err
	}
	var found string
	if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, found)
	}
	return s.migrate(ctx)
}

// ErrFull means that a change was not made because the disk is full. errors.Is treats it as ENOSPC.
var ErrFull error = fullError{}

type fullError struct{}

func (fullError) Error() string        { return "the disk is full" }
func (fullError) Is(target error) bool { return target == syscall.ENOSPC }

// ErrDisk means that the database could not be read or written.
var ErrDisk = errors.New("the disk failed")

// damage wraps an error of SQLite (sqlite.org/rescode.html): in ErrDamaged for a file that is no database or an
// incomplete one, and in ErrFull or ErrDisk for a full or broken disk.
func damage(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE { // the shared memory of the database cannot grow
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("%w: %w", ErrFull, err)
		case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
			return fmt.Errorf("%w: %w", ErrDisk, err)
		}
	}
	return err
}

// CopyTo writes a complete copy of the database to path, durably. It replaces an older copy.
func (s *Store) CopyTo(ctx context.Context, path string) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// SQLite fills an empty file, so the copy gets our mode.
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = s.db.ExecContext(ctx, "VACUUM INTO ?", tmp); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("copying the database to %s: %w", path, err)
	}
	return blob.Sync(filepath.Dir(path))
}

// SQLiteVersion returns the version of SQLite in this binary.
func (s *Store) SQLiteVersion(ctx context.Context) (string, error) {
	var v string
	err := s.db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&v)
	return v, err
}

func checkSQLite(v string) error {
	for i, part := range strings.SplitN(v, ".", 3) {
		n, err := strconv.Atoi(part)
		if err != nil {
			return fmt.Errorf("SQLite calls itself %q: %w", v, err)
		}
		if n != MinSQLite[i] {
			if n > MinSQLite[i] {
				return nil
			}
			return fmt.Errorf("SQLite %s can lose data in WAL mode, at least %v is needed", v, MinSQLite)
		}
	}
	return nil
}

// migrate applies the numbered files above PRAGMA user_version, each in its own transaction.
func (s *Store) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migration/*.sql")
	if err != nil {
		return err
	}
	sort.Strings(files)
	var have int
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have > len(files) {
		return banger.Errorf(banger.CodeVersion, "the database has schema %d, but this banger knows only %d",
			have, len(files)).
			WithHint("use the banger that wrote it, or a later one")
	}
	for i := have; i < len(files); i++ {
		text, err := migrations.ReadFile(files[i])
		if err != nil {
			return err
		}
		err = s.tx(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, string(text)); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", i+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %s: %w", files[i], err)
		}
	}
	return nil
}

func (s *Store) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return damage(err)
	}
	if err := f(tx); err != nil {
		tx.Rollback()
		return damage(err)
	}
	return damage(tx.Commit())
}

// freeSlot finds the smallest slot that no VM has.
const freeSlot = `SELECT min(n) FROM (SELECT 1 AS n UNION SELECT slot + 1 FROM vm) WHERE n NOT IN (SELECT slot FROM vm)`

// Create inserts an uncommitted VM and returns its slot, which is the smallest free one. It returns an *Error of
// CodeConflict when the name is taken.
func (s *Store) Create(ctx context.Context, vm banger.VM) (slot int, err error) {
	doc, err := json.Marshal(vm)
	if err != nil {
		return 0, err
	}
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, freeSlot).Scan(&slot); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO vm (id, name, slot, committed, document) VALUES (?, ?, ?, 0, ?)`,
			vm.ID, vm.Name, slot, string(doc))
		return err
	})
	return slot, nameConflict(err, vm.Name)
}

// Update replaces the VM's document and name. It returns an *Error of CodeConflict when the name is taken, and of
// CodeNotFound when the row does not exist.
func (s *Store) Update(ctx context.Context, vm banger.VM) error {
	doc, err := json.Marshal(vm)
	if err != nil {
		return err
	}
	return s.one(ctx, vm, `UPDATE vm SET name = ?, document = ? WHERE id = ?`, vm.Name, string(doc), vm.ID)
}

// Commit is like Update, and records that the creation has succeeded.
func (s *Store) Commit(ctx context.Context, vm banger.VM) error {
	doc, err := json.Marshal(vm)
	if err != nil {
		return err
	}
	return s.one(ctx, vm, `UPDATE vm SET name = ?, document = ?, committed = 1 WHERE id = ?`, vm.Name, string(doc), vm.ID)
}

// Undo marks the VM as removed. Its files and then its row are removed at the next start at the latest. Its name is
// free at once.
func (s *Store) Undo(ctx context.Context, vm banger.VM) error {
	return s.one(ctx, vm, `UPDATE vm SET name = id, committed = 0 WHERE id = ?`, vm.ID)
}

// Insert adds a committed row, or replaces the row of this VM. The row gets its slot, or the smallest free one if
// another VM has that slot. It returns an *Error of CodeConflict when another VM has the name.
func (s *Store) Insert(ctx context.Context, r Row) error {
	doc, err := json.Marshal(r.VM)
	if err != nil {
		return err
	}
	err = s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM vm WHERE id = ?`, r.VM.ID); err != nil {
			return err
		}
		var taken int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM vm WHERE slot = ?`, r.Slot).Scan(&taken); err != nil {
			return err
		}
		if taken > 0 || r.Slot < 1 {
			if err := tx.QueryRowContext(ctx, freeSlot).Scan(&r.Slot); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO vm (id, name, slot, committed, document) VALUES (?, ?, ?, 1, ?)`,
			r.VM.ID, r.VM.Name, r.Slot, string(doc))
		return err
	})
	return nameConflict(err, r.VM.Name)
}

// Delete removes the row. It returns no error if the row does not exist.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM vm WHERE id = ?`, id)
	return damage(err)
}

// List returns all rows in the order of their slots, including rows that cannot be read.
func (s *Store) List(ctx context.Context) ([]Row, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, name, slot, committed, document FROM vm ORDER BY slot`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Row
	for rows.Next() {
		var r Row
		var id, name, doc string
		if err := rows.Scan(&id, &name, &r.Slot, &r.Committed, &doc); err != nil {
			return nil, damage(err)
		}
		if err := json.Unmarshal([]byte(doc), &r.VM); err != nil {
			r.Broken = err
		} else if r.VM.ID != id {
			r.Broken = errors.New("the document is of another VM")
		}
		if r.Broken != nil {
			r.VM = banger.VM{ID: id, Name: name}
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

func (s *Store) one(ctx context.Context, vm banger.VM, query string, args ...any) error {
	res, err := s.db.ExecContext(ctx, query, args...)
	if err != nil {
		return nameConflict(damage(err), vm.Name)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return banger.Errorf(banger.CodeNotFound, "VM %s no longer exists", vm.Name)
	}
	return nil
}

func nameConflict(err error, name string) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE {
		return banger.Errorf(banger.CodeConflict, "a VM called %q exists already", name).
			WithHint("choose another --name, or remove it: banger rm %s", name)
	}
	return err
}
