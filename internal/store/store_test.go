package store

import (
	"context"
	"path/filepath"
	"testing"

	"banger"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestNamesAndSlotsAreUnique(t *testing.T) {
	ctx := t.Context()
	s := open(t, filepath.Join(t.TempDir(), "banger.db"))
	for i, name := range []string{"a", "b", "c"} {
		slot, err := s.Create(ctx, banger.VM{ID: name + "-id", Name: name})
		if err != nil || slot != i+1 {
			t.Fatalf("create %s: slot %d, %v", name, slot, err)
		}
	}
	if _, err := s.Create(ctx, banger.VM{ID: "x", Name: "b"}); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a second VM called b: %v", err)
	}
	if err := s.Update(ctx, banger.VM{ID: "a-id", Name: "b"}); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("renaming a to b: %v", err)
	}
	if err := s.Delete(ctx, "b-id"); err != nil {
		t.Fatal(err)
	}
	if slot, err := s.Create(ctx, banger.VM{ID: "d-id", Name: "b"}); err != nil || slot != 2 {
		t.Errorf("the freed slot and name were not used again: slot %d, %v", slot, err)
	}
	if err := s.Update(ctx, banger.VM{ID: "gone", Name: "gone"}); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("updating a VM that is gone: %v", err)
	}
}

func TestRowsOutliveTheProcessAndTellWhetherTheyWereCommitted(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "odd ?#% name.db")
	s := open(t, path)
	for _, id := range []string{"whole", "half"} {
		if _, err := s.Create(ctx, banger.VM{ID: id, Name: id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(ctx, banger.VM{ID: "whole", Name: "whole", State: banger.StateRunning}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	rows, err := open(t, path).List(ctx)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if !rows[0].Committed || rows[0].VM.State != banger.StateRunning || rows[1].Committed {
		t.Errorf("rows came back as %+v", rows)
	}
}

func TestALaterSchemaIsRefusedUntouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "banger.db")
	s := open(t, path)
	if _, err := s.db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(context.Background(), path); banger.CodeOf(err) != banger.CodeVersion {
		t.Errorf("opening a database of schema 99: %v", err)
	}
}

func TestSQLiteIsNewEnoughAndSynchronous(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "banger.db"))
	v, err := s.SQLiteVersion(t.Context())
	if err != nil || checkSQLite(v) != nil {
		t.Fatalf("SQLite %s: %v, %v", v, err, checkSQLite(v))
	}
	for _, old := range []string{"3.51.2", "3.40.1", "2.9.9"} {
		if checkSQLite(old) == nil {
			t.Errorf("SQLite %s was accepted", old)
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2"} {
		var got string
		if err := s.db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", pragma, got, err, want)
		}
	}
}
