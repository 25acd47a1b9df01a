package workspace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/console"
	"banger/internal/guest"
)

// The files of a workspace in its directory, which has the name of its id. A directory without a record is what an
// interruption has left. Each generation of changes has a directory, in which overlayfs has its two.
const (
	recordFile = "record.json"
	imageFile  = "baseline.ext4"
	baseDir    = "baseline" // the image is mounted here
)

// maxRecord bounds the size of a record in bytes.
const maxRecord = 64 << 10

// record is what is stored of a workspace.
type record struct {
	banger.Workspace
	Generation int `json:"generation"` // of the changes
}

func (w *workspace) path() string  { return filepath.Join(w.m.dir, w.ID) }
func (w *workspace) image() string { return filepath.Join(w.path(), imageFile) }
func (w *workspace) base() string  { return filepath.Join(w.path(), baseDir) }

// generation returns the directory of a generation of changes.
func (w *workspace) generation(n int) string { return filepath.Join(w.path(), strconv.Itoa(n)) }

func (w *workspace) upper(n int) string { return filepath.Join(w.generation(n), "upper") }
func (w *workspace) work(n int) string  { return filepath.Join(w.generation(n), "work") }

// write makes r the record in a directory, which then survives a power cut.
func (r record) write(dir string) error {
	r.Error, r.InOld = "", 0
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, recordFile)
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		os.Remove(name + ".new")
		return err
	}
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// loadRecord reads the record of a workspace of an earlier boot. A record that is broken gives one with a name, by
// which the workspace can be removed.
func (m *Manager) loadRecord(id string) (r record, err error) {
	dir, err := unix.Open(filepath.Join(m.dir, id), openDir, 0)
	if err != nil {
		return broken(id), err
	}
	defer unix.Close(dir)
	return readRecord(dir, id, func(name string) bool { return m.all[name] != nil })
}

func broken(id string) record {
	return record{Workspace: banger.Workspace{ID: id, Name: "broken-" + id[:12], Path: "/"}}
}

// readRecord reads the record in the directory of a workspace. isTaken says whether another workspace has a name.
func readRecord(dir int, id string, isTaken func(name string) bool) (r record, err error) {
	f, st, err := openFile(dir, recordFile)
	if errors.Is(err, os.ErrNotExist) {
		return broken(id), err
	}
	if err != nil || st.Size > maxRecord {
		f.Close()
		return broken(id), errors.New("its record cannot be read")
	}
	defer f.Close()
	if json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&r) != nil || guest.CheckNewWorkspace(r.Workspace) != nil ||
		r.ID != id || isTaken(r.Name) || r.Generation < 1 {
		return broken(id), errors.New("its record is broken")
	}
	r.Error, r.InOld, r.Stored = "", 0, false
	return r, nil
}

// removeRecord makes a workspace one that no later boot knows.
func removeRecord(dir string) error {
	if err := os.Remove(filepath.Join(dir, recordFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return syncDir(dir)
}

// removeOld removes what resets have left of earlier generations of changes.
func (m *Manager) removeOld(w *workspace) {
	entries, _ := os.ReadDir(w.path())
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n == w.Generation {
			continue
		}
		if err := os.RemoveAll(w.generation(n)); err != nil {
			console.Warn(fmt.Errorf("removing old changes of the workspace %s: %w", w.Name, err))
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
