// Package store keeps VMs in SQLite. It converts rows to nouns and back and
// holds the constraints that must survive a crash: unique names and slots. It
// must not know what a VM's state means or touch anything else on the host.
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
	"sort"
	"strconv"
	"strings"
	"syscall"

	"modernc.org/sqlite" // registers "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"banger"
)

//go:embed migration/*.sql
var migrations embed.FS

// MinSQLite is the first SQLite without the WAL-reset race, which could lose or
// corrupt data with two connections (sqlite.org/wal.html#walresetbug).
var MinSQLite = [3]int{3, 51, 3}

// Store is an open database. Its methods may be called concurrently.
type Store struct{ db *sql.DB }

// Row is a VM with what only the store knows of it.
type Row struct {
	VM        banger.VM
	Slot      int
	Committed bool
}

// Open opens or creates the database at path and migrates it. It refuses a
// database of a later banger without touching it.
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
	db.SetMaxOpenConns(1) // one writer; reads are short
	s := &Store{db: db}
	if err := s.prepare(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return s, nil
}

// protect makes the database's files this user's alone before SQLite opens them, which gives its log and its shared memory the
// database's mode.
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
	return s.migrate(ctx)
}

// SQLiteVersion returns the version of the SQLite in this binary.
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

// migrate applies the numbered files that PRAGMA user_version has not seen, each
// in a transaction of its own.
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
		return banger.Errorf(banger.CodeVersion, "the database has schema %d, but this banger knows only %d", have, len(files)).
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
		return err
	}
	if err := f(tx); err != nil {
		tx.Rollback()
		return err
	}
	return tx.Commit()
}

// Create inserts an uncommitted VM and returns its slot, the smallest free one.
// It returns an *Error of CodeConflict when the name is taken.
func (s *Store) Create(ctx context.Context, vm banger.VM) (slot int, err error) {
	doc, err := json.Marshal(vm)
	if err != nil {
		return 0, err
	}
	err = s.tx(ctx, func(tx *sql.Tx) error {
		const free = `SELECT min(n) FROM (SELECT 1 AS n UNION SELECT slot + 1 FROM vm) WHERE n NOT IN (SELECT slot FROM vm)`
		if err := tx.QueryRowContext(ctx, free).Scan(&slot); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO vm (id, name, slot, committed, document) VALUES (?, ?, ?, 0, ?)`, vm.ID, vm.Name, slot, string(doc))
		return err
	})
	return slot, nameConflict(err, vm.Name)
}

// Update replaces the VM's document and name. It returns an *Error of
// CodeConflict when the name is taken and CodeNotFound when the row is gone.
func (s *Store) Update(ctx context.Context, vm banger.VM) error {
	doc, err := json.Marshal(vm)
	if err != nil {
		return err
	}
	return s.one(ctx, vm, `UPDATE vm SET name = ?, document = ? WHERE id = ?`, vm.Name, string(doc), vm.ID)
}

// Commit is Update and says that creation has succeeded.
func (s *Store) Commit(ctx context.Context, vm banger.VM) error {
	doc, err := json.Marshal(vm)
	if err != nil {
		return err
	}
	return s.one(ctx, vm, `UPDATE vm SET name = ?, document = ?, committed = 1 WHERE id = ?`, vm.Name, string(doc), vm.ID)
}

// Delete removes the row; a row that is gone is no error.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM vm WHERE id = ?`, id)
	return err
}

// List returns all rows in the order of their slots.
func (s *Store) List(ctx context.Context) ([]Row, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT slot, committed, document FROM vm ORDER BY slot`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Row
	for rows.Next() {
		var r Row
		var doc string
		if err := rows.Scan(&r.Slot, &r.Committed, &doc); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(doc), &r.VM); err != nil {
			return nil, fmt.Errorf("row in slot %d: %w", r.Slot, err)
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

func (s *Store) one(ctx context.Context, vm banger.VM, query string, args ...any) error {
	res, err := s.db.ExecContext(ctx, query, args...)
	if err != nil {
		return nameConflict(err, vm.Name)
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
