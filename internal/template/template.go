// Package template keeps templates: snapshots of guests that wait for their host, from which any number of VMs start.
// It must not know what a template is cut of, nor when.
package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/sealed"
	"banger/internal/untrusted"
	"banger/internal/vmdir"
	"banger/internal/vmm"
)

// diskFile is the disk that the guest of a template has mounted. A template without one has mounted none.
const diskFile = "disk.ext4"

// infoFile says what a template is of. A directory without it is not a template.
const infoFile = "template.json"

// info is the content of infoFile.
type info struct {
	Shape string `json:"shape"` // what it was cut of, which its id abbreviates
	banger.Template
}

// Store keeps templates in a directory of its own, one below it for each. Its methods may be called at the same time.
type Store struct {
	dir      string
	memories sealed.Memories
}

// Open opens the store in dir, which it makes. It removes what was not completed.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Store{dir: dir}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if _, rerr := s.read(e.Name()); rerr != nil {
			err = errors.Join(err, untrusted.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return s, err
}

// Close gives up the memory that the store holds. VMs that have it keep it.
func (s *Store) Close() { s.memories.Close() }

// IDOf returns the id that the template of a shape has. A shape is the hexadecimal digits of a hash.
func IDOf(shape string) string { return shape[:12] }

func (s *Store) path(id string) string { return filepath.Join(s.dir, id) }

func (s *Store) read(id string) (i info, err error) {
	f, err := os.Open(filepath.Join(s.path(id), infoFile))
	if err != nil {
		return i, err
	}
	defer f.Close()
	err = json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&i)
	if err == nil && (len(i.Shape) <= 12 || IDOf(i.Shape) != id) {
		err = errors.New("it is of another shape")
	}
	return i, err
}

// Has reports whether there is a template of a shape.
func (s *Store) Has(shape string) bool {
	i, err := s.read(IDOf(shape))
	return err == nil && i.Shape == shape
}

// Opened is a template whose files are open.
type Opened struct {
	ID    string
	Saved *vmm.Saved
	Disk  *os.File // nil if the guest has mounted none
}

// Close closes the files.
func (o *Opened) Close() {
	o.Saved.Close()
	o.Disk.Close() // does nothing if Disk is nil
}

// Use opens the template of a shape, and notes the time. It returns fs.ErrNotExist if the store has no such template.
// After another error the template is of no use. With seal, the memory can be opened for writing, but nobody can
// write to it. The caller closes what is returned.
func (s *Store) Use(shape string, seal bool) (*Opened, error) {
	id := IDOf(shape)
	if i, err := s.read(id); err != nil {
		return nil, err
	} else if i.Shape != shape {
		return nil, fs.ErrNotExist
	}
	o, err := s.open(id, seal)
	if err != nil {
		return nil, fmt.Errorf("the template %s cannot be opened: %v", id, err) // it is there, whatever is not
	}
	now := time.Now()
	os.Chtimes(filepath.Join(s.path(id), infoFile), now, now) // only the order of removal depends on it
	return o, nil
}

func (s *Store) open(id string, seal bool) (*Opened, error) {
	saved, err := s.memories.OpenSaved(id, s.path(id), seal)
	if err != nil {
		return nil, err
	}
	o := &Opened{ID: id, Saved: saved}
	if o.Disk, err = os.Open(filepath.Join(s.path(id), diskFile)); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// Add makes the snapshot in the directory from a template, with the disk in the file disk unless that is "". The caller
// owns the files, which are moved. All users may read them if they get at them, but nobody else can list the store.
func (s *Store) Add(shape string, t banger.Template, from, disk string) error {
	id := IDOf(shape)
	files := map[string]string{}
	for _, name := range vmm.SavedNames() {
		files[name] = filepath.Join(from, name)
	}
	if disk != "" {
		files[diskFile] = disk
	}
	for _, path := range files {
		if err := prepare(path); err != nil {
			return err
		}
	}
	if err := s.Remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(s.path(id), 0o700); err != nil {
		return err
	}
	err := s.move(id, files)
	if err == nil {
		t.ID, t.CreatedAt, t.Size = id, time.Now().UTC(), vmdir.Room(s.path(id))
		err = blob.WriteJSON(filepath.Join(s.path(id), infoFile), info{shape, t})
	}
	if err != nil {
		untrusted.RemoveAll(s.path(id))
		return err
	}
	return blob.Sync(s.dir)
}

// prepare makes a file one that nobody changes, durably.
func prepare(path string) error {
	f, err := vmm.OpenOwn(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return errors.Join(f.Chmod(0o444), f.Sync())
}

func (s *Store) move(id string, files map[string]string) error {
	for name, path := range files {
		if err := os.Rename(path, filepath.Join(s.path(id), name)); err != nil {
			return err
		}
	}
	return blob.Sync(s.path(id))
}

// List returns the templates, the one that was used last first.
func (s *Store) List() ([]banger.Template, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	used := map[string]time.Time{}
	list := []banger.Template{}
	for _, e := range entries {
		i, err := s.read(e.Name())
		st, serr := os.Stat(filepath.Join(s.path(e.Name()), infoFile))
		if err != nil || serr != nil {
			continue
		}
		used[i.ID] = st.ModTime()
		if at := st.ModTime().UTC(); at.Sub(i.CreatedAt) > time.Second { // it was not only made
			i.UsedAt = at
		}
		list = append(list, i.Template)
	}
	slices.SortFunc(list, func(a, b banger.Template) int { return used[b.ID].Compare(used[a.ID]) })
	return list, nil
}

// Find returns the template whose id starts with ref.
func (s *Store) Find(ref string) (banger.Template, error) {
	list, err := s.List()
	if err != nil {
		return banger.Template{}, err
	}
	var found []banger.Template
	for _, t := range list {
		if ref != "" && strings.HasPrefix(t.ID, ref) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return banger.Template{}, banger.Errorf(banger.CodeNotFound, "there is no template %q", ref).
			WithHint("see: banger warm ls")
	}
	return banger.Template{}, banger.Errorf(banger.CodeConflict, "%d templates have ids that start with %q",
		len(found), ref).
		WithHint("give more of the id; see: banger warm ls")
}

// Remove removes a template, its description first. VMs that have started from it keep what they have of it.
func (s *Store) Remove(id string) error {
	s.memories.Forget(id)
	if err := os.Remove(filepath.Join(s.path(id), infoFile)); err != nil {
		return err
	}
	return errors.Join(blob.Sync(s.path(id)), untrusted.RemoveAll(s.path(id)), blob.Sync(s.dir))
}

// Shrink removes templates until all take at most limit bytes, those that were used longest ago first. It returns those
// that it has removed.
func (s *Store) Shrink(limit int64) (removed []banger.Template, err error) {
	list, err := s.List()
	room := int64(0)
	for _, t := range list {
		if room += t.Size; room <= limit {
			continue
		}
		if rerr := s.Remove(t.ID); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		removed, room = append(removed, t), room-t.Size
	}
	return removed, err
}
