// Package snapshot keeps snapshots of VMs: memory and state of the devices, the main command's output, and the record
// of the VM at that instant. The disk is a layer, which package overlay keeps. A snapshot's directory says all of it:
// no row is needed.
//
// The package must not know how a snapshot is taken, nor how a VM goes on from one.
package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"banger"
	"banger/internal/blob"
	"banger/internal/sealed"
	"banger/internal/sparse"
	"banger/internal/untrusted"
	"banger/internal/vmdir"
	"banger/internal/vmm"
)

// infoFile describes a snapshot. A directory without it is not a snapshot.
const infoFile = "info.json"

// Whole is a snapshot with the VM that it was taken of, as it was.
type Whole struct {
	banger.Snapshot
	Machine banger.VM `json:"machine"`
	// Passing snapshots go with the end of a fork or a comparison, also if the daemon dies before it.
	Passing bool `json:"passing,omitempty"`
	// DiskOnly says that the snapshot is to have no memory.
	DiskOnly bool `json:"-"`
}

// Store keeps the snapshots of one daemon. Its methods may be called at the same time.
type Store struct {
	dir      string
	memories sealed.Memories
	mu       sync.Mutex // held while a name is taken
}

// Open returns the store in dir, which it makes. It removes what was not completed.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		w, rerr := s.read(e.Name())
		switch {
		case errors.Is(rerr, fs.ErrNotExist):
			err = errors.Join(err, untrusted.RemoveAll(s.path(e.Name())))
		case rerr == nil && w.Passing:
			err = errors.Join(err, s.Remove(w.ID))
		}
	}
	return s, err
}

// Close gives up the memory that the store holds. VMs that have it keep it.
func (s *Store) Close() { s.memories.Close() }

func (s *Store) path(id string) string { return filepath.Join(s.dir, id) }

func (s *Store) read(id string) (w Whole, err error) {
	f, err := os.Open(filepath.Join(s.path(id), infoFile))
	if err != nil {
		return w, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(&w); err != nil {
		return w, err
	}
	if w.ID != id || !banger.ValidID(id) {
		return w, errors.New("it is the description of another snapshot")
	}
	return w, nil
}

// List returns all snapshots, the newest first.
func (s *Store) List() (list []Whole, err error) {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if w, rerr := s.read(e.Name()); rerr == nil {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b Whole) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, err
}

// Layers returns the layers of all snapshots. An error means that there may be others.
func (s *Store) Layers() (list []string, err error) {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		w, rerr := s.read(e.Name())
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("the snapshot %s cannot be read: %w", e.Name(), rerr))
		}
		list = append(list, w.Layer)
	}
	return list, err
}

// Find returns the snapshot that ref names: a name, an id, or a unique prefix of an id.
func (s *Store) Find(ref string) (Whole, error) {
	list, err := s.List()
	if err != nil {
		return Whole{}, err
	}
	var found []Whole
	for _, w := range list {
		if w.Name == ref || w.ID == ref {
			return w, nil
		}
		if ref != "" && strings.HasPrefix(w.ID, ref) {
			found = append(found, w)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Whole{}, banger.Errorf(banger.CodeNotFound, "there is no snapshot called %q", ref).
			WithHint("see: banger snapshot ls")
	}
	return Whole{}, banger.Errorf(banger.CodeInvalid, "%q is the start of %d ids of snapshots", ref, len(found)).
		WithHint("give more of the id")
}

// CheckName returns an error if a snapshot has the name.
func (s *Store) CheckName(name string) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	for _, w := range list {
		if w.Name == name {
			return banger.Errorf(banger.CodeConflict, "there is a snapshot %s already", name).
				WithHint("use another name, or remove it: banger snapshot rm %s", name)
		}
	}
	return nil
}

// freeName returns base with the lowest number that no snapshot's name has.
func (s *Store) freeName(base string) (string, error) {
	list, err := s.List()
	taken := map[string]bool{}
	for _, w := range list {
		taken[w.Name] = true
	}
	if len(base) > 50 {
		base = strings.Trim(base[:50], "-")
	}
	for n := 1; ; n++ {
		if name := fmt.Sprintf("%s-%d", base, n); !taken[name] {
			return name, err
		}
	}
}

// files are the names of the files of a snapshot with memory. The first ones must be there.
func files() []string { return append(vmm.SavedNames(), vmdir.OutputFiles()...) }

// Add makes a snapshot of w with the files in the directory from, or without memory if from is "". With move, the
// files are moved, and otherwise copied, by reference if the file system can do that. A snapshot without a name gets
// one.
func (s *Store) Add(ctx context.Context, w Whole, from string, move bool) (_ banger.Snapshot, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.Name == "" {
		if w.Name, err = s.freeName(w.VMName); err != nil {
			return w.Snapshot, err
		}
	} else if err := s.CheckName(w.Name); err != nil {
		return w.Snapshot, err
	}
	if err := os.Mkdir(s.path(w.ID), 0o700); err != nil {
		return w.Snapshot, err
	}
	w.Memory = from != "" && !w.DiskOnly
	if w.Memory {
		err = s.fill(ctx, w.ID, from, move)
	}
	if err == nil {
		w.Size = vmdir.Room(s.path(w.ID))
		err = errors.Join(blob.WriteJSON(filepath.Join(s.path(w.ID), infoFile), w), blob.Sync(s.path(w.ID)), blob.Sync(s.dir))
	}
	if err != nil {
		untrusted.RemoveAll(s.path(w.ID))
	}
	return w.Snapshot, err
}

// fill gives a snapshot its files, which nobody writes.
func (s *Store) fill(ctx context.Context, id, from string, move bool) error {
	for i, name := range files() {
		to := filepath.Join(s.path(id), name)
		var err error
		if move {
			err = os.Rename(filepath.Join(from, name), to)
		} else {
			err = copyFile(ctx, filepath.Join(from, name), to)
		}
		if errors.Is(err, fs.ErrNotExist) && i >= vmm.SavedFiles {
			continue
		}
		if err == nil {
			err = seal(to)
		}
		if err != nil {
			return err
		}
	}
	return blob.Sync(s.path(id))
}

// seal makes a file one that nobody writes. VMMs of other users open it again by a descriptor that they are given; by
// its name nobody else reaches it.
func seal(path string) error {
	f, err := vmm.OpenOwn(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return untrusted.TakeOver(f, 0o444)
}

func copyFile(ctx context.Context, from, to string) error {
	src, err := untrusted.Open(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := untrusted.Create(to, 0o600)
	if err != nil {
		return err
	}
	err = sparse.Copy(ctx, dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}

// Saved opens the memory of a snapshot, for VMs that share it. With seal, the memory can be opened for writing, but
// nobody can write to it. The caller closes it.
func (s *Store) Saved(id string, seal bool) (*vmm.Saved, error) {
	return s.memories.OpenSaved(id, s.path(id), seal)
}

// CopyTo copies the files of a snapshot with memory to a VM's directory, durably and its manifest last. Without
// memory it copies only the main command's output.
func (s *Store) CopyTo(ctx context.Context, id, dir string, memory bool) error {
	names := vmdir.OutputFiles()
	if memory {
		names = inOrder()
	}
	for _, name := range names {
		err := copyFile(ctx, filepath.Join(s.path(id), name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := blob.Sync(dir); err != nil {
			return err
		}
	}
	return nil
}

// inOrder returns the names of the files of a snapshot with memory, its manifest last.
func inOrder() []string {
	saved := vmm.SavedNames()
	slices.Reverse(saved) // the manifest comes first there
	return append(vmdir.OutputFiles(), saved...)
}

// Move moves what CopyTo has copied, with memory, to another directory: durably and the manifest last. It may be
// called again until the manifest has moved.
func Move(from, to string) error {
	for _, name := range inOrder() {
		err := os.Rename(filepath.Join(from, name), filepath.Join(to, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := blob.Sync(to); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes a snapshot, its description first. VMs that go on from it keep what they have of it.
func (s *Store) Remove(id string) error {
	s.memories.Forget(id)
	if err := os.Remove(filepath.Join(s.path(id), infoFile)); err != nil {
		return err
	}
	return errors.Join(blob.Sync(s.path(id)), untrusted.RemoveAll(s.path(id)), blob.Sync(s.dir))
}

// Room returns how many bytes of the host's disk a snapshot takes, without its layer.
func (s *Store) Room(id string) int64 { return vmdir.Room(s.path(id)) }
