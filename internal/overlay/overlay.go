// Package overlay keeps layers: files with what the disk of a VM had at some time, which nobody writes any more. The
// disk of a VM is an overlay on a layer, which may be an overlay on another one, and so on. Any number of disks share
// layers.
//
// The package must not know why a disk is frozen, nor what is in a disk.
package overlay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/qcow2"
	"banger/internal/untrusted"
	"banger/internal/vmdir"
	"banger/internal/vmm"
)

// MaxDepth is the number of layers beneath a disk from which on they are joined.
const MaxDepth = 8

// Layer describes a layer. Its file is an overlay on Parent, or a raw image without one.
type Layer struct {
	ID      string    `json:"id"`
	Parent  string    `json:"parent,omitempty"`
	Size    int64     `json:"size"` // of the disk in bytes
	VM      string    `json:"vm"`   // id of the VM whose disk it was
	File    string    `json:"file"` // name in the layer's directory
	Created time.Time `json:"created"`
}

// infoFile has a Layer. A directory without it is not a layer.
const infoFile = "layer.json"

// Names of a layer's file: as it was frozen, and all layers beneath it joined with it.
const (
	frozenFile = "disk"
	joinedFile = "joined"
)

// Store keeps the layers of one daemon. Its methods may be called at the same time, but those about one VM's disk
// only one after the other.
type Store struct {
	dirs vmdir.Dirs
}

// Open returns the store of the layers in dirs, whose directory it makes. It removes what was not completed, and
// files that are no longer needed. No VM may start meanwhile.
func Open(dirs vmdir.Dirs) (*Store, error) {
	s := &Store{dirs: dirs}
	if err := os.MkdirAll(dirs.Layers(), 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dirs.Layers())
	for _, e := range entries {
		l, rerr := s.Get(e.Name())
		switch {
		case errors.Is(rerr, fs.ErrNotExist):
			err = errors.Join(err, untrusted.RemoveAll(s.path(e.Name())))
		case rerr == nil:
			err = errors.Join(err, s.tidy(l))
		}
	}
	return s, err
}

func (s *Store) path(id string) string { return filepath.Join(s.dirs.Layers(), id) }

func (l Layer) file(s *Store) string { return filepath.Join(s.path(l.ID), l.File) }

// Get returns a layer. It returns fs.ErrNotExist if there is none with this id.
func (s *Store) Get(id string) (l Layer, err error) {
	if !banger.ValidID(id) {
		return l, fs.ErrNotExist
	}
	f, err := os.Open(filepath.Join(s.path(id), infoFile))
	if err != nil {
		return l, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&l); err != nil {
		return l, fmt.Errorf("the description of the layer %s cannot be read: %w", id, err)
	}
	if l.ID != id || l.File != frozenFile && l.File != joinedFile {
		return l, fmt.Errorf("the description of the layer %s is of another one", id)
	}
	return l, nil
}

// Drive returns the disk of a VM as its VMM gets it. It completes a freeze that was cut off, so the VM must have no
// VMM.
func (s *Store) Drive(vm banger.VM) (vmm.Drive, error) {
	d := vmm.Drive{Serial: "disk", Path: s.dirs.Disk(vm.ID, vm.Base)}
	if vm.Base == "" {
		return d, nil
	}
	if err := s.settle(vm); err != nil {
		return d, err
	}
	chain, err := s.chain(vm.Base)
	d.Base = s.files(chain)
	return d, err
}

// files returns the layers of a chain as a VMM gets them.
func (s *Store) files(chain []Layer) (list []vmm.Layer) {
	for _, l := range chain {
		list = append(list, vmm.Layer{Path: l.file(s)})
	}
	return list
}

// chain returns a layer and those beneath it.
func (s *Store) chain(id string) (list []Layer, err error) {
	for id != "" {
		l, err := s.Get(id)
		if err != nil {
			return nil, banger.Errorf(banger.CodeConflict, "the disk cannot be used: its layer %s: %w", id, banger.Cause(err))
		}
		if len(list) > 1000 {
			return nil, banger.Errorf(banger.CodeInternal, "the layers beneath %s have no end", list[0].ID)
		}
		list, id = append(list, l), l.Parent
	}
	return list, nil
}

// Depth returns the number of layers beneath a disk on the layer id.
func (s *Store) Depth(id string) (int, error) {
	list, err := s.chain(id)
	return len(list), err
}

// Check returns an error unless the overlay of a VM's disk is one that its VMM can be given. It reads the file that
// the last VMM could write to.
func (s *Store) Check(vm banger.VM) error {
	if vm.Base == "" {
		return nil
	}
	l, err := s.Get(vm.Base)
	if err == nil {
		err = checkFile(s.dirs.Disk(vm.ID, vm.Base), l.Size)
	}
	if err != nil {
		return banger.Errorf(banger.CodeConflict, "the disk of VM %s cannot be used: %w", vm.Name, err)
	}
	return nil
}

func checkFile(path string, size int64) error {
	f, err := untrusted.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return qcow2.Check(f, size)
}

// Begin makes a new layer of a VM's disk, and an empty overlay on it in the VM's directory. What the disk writes to
// now becomes the layer's file by Freeze. The caller first stores the layer as the VM's Base, and undoes all by
// Abandon if the VM goes on with the old file. Until Freeze the file is in the VM's directory.
func (s *Store) Begin(vm banger.VM) (id string, err error) {
	l := Layer{ID: banger.NewID(), Parent: vm.Base, VM: vm.ID, File: frozenFile, Created: time.Now().UTC()}
	if l.Size, err = s.size(vm); err != nil {
		return "", err
	}
	if err := s.describe(l); err != nil {
		return "", err
	}
	if err := s.plant(vm.ID, l); err != nil {
		return "", errors.Join(err, s.Abandon(vm.ID, l.ID))
	}
	return l.ID, nil
}

// size returns the size of a VM's disk in bytes.
func (s *Store) size(vm banger.VM) (int64, error) {
	if vm.Base != "" {
		l, err := s.Get(vm.Base)
		return l.Size, err
	}
	info, err := os.Lstat(s.dirs.Disk(vm.ID, ""))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// describe makes the directory of a layer with its description, durably.
func (s *Store) describe(l Layer) error {
	if err := os.Mkdir(s.path(l.ID), 0o700); err != nil {
		return err
	}
	err := errors.Join(blob.WriteJSON(filepath.Join(s.path(l.ID), infoFile), l), blob.Sync(s.path(l.ID)),
		blob.Sync(s.dirs.Layers()))
	if err != nil {
		untrusted.RemoveAll(s.path(l.ID))
	}
	return err
}

// plant makes an empty overlay on a layer in a VM's directory, durably. It belongs to the owner of the directory. It
// replaces one that was left there by what was cut off.
func (s *Store) plant(vm string, l Layer) (err error) {
	path := s.dirs.Disk(vm, l.ID)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}()
	if err := qcow2.Create(f, l.Size); err != nil {
		return err
	}
	info, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), blob.Sync(filepath.Dir(path)))
}

// Plant makes the disk of a VM an empty overlay on a layer, which the caller then stores as the VM's Base.
func (s *Store) Plant(vm, layer string) error {
	l, err := s.Get(layer)
	if err != nil {
		return err
	}
	return s.plant(vm, l)
}

// Freeze makes what a VM's disk wrote to before Begin the file of the layer. The disk writes to the overlay now, or
// the VM has no VMM.
func (s *Store) Freeze(layer string) error {
	l, err := s.Get(layer)
	if err != nil {
		return err
	}
	from := s.dirs.Disk(l.VM, l.Parent)
	if err := os.Rename(from, l.file(s)); err != nil {
		return err
	}
	if err := s.seal(l); err != nil {
		return errors.Join(err, os.Rename(l.file(s), from))
	}
	return errors.Join(blob.Sync(s.path(l.ID)), blob.Sync(filepath.Dir(from)))
}

// seal makes a layer's file one that nobody else can read and nobody writes.
func (s *Store) seal(l Layer) error {
	f, err := untrusted.Open(l.file(s), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if l.Parent != "" {
		if err := qcow2.Check(f, l.Size); err != nil {
			return err
		}
	}
	return untrusted.TakeOver(f, 0o400)
}

// settle completes the freezes of layers beneath a VM's disk that were cut off, the lowest first. Their files are
// then in the VM's directory, and each overlay is above the file of before, whether anything was written to it or
// not.
func (s *Store) settle(vm banger.VM) error {
	broken := func(format string, args ...any) error {
		return banger.Errorf(banger.CodeConflict, "the disk of VM %s cannot be used: %w", vm.Name,
			fmt.Errorf(format, args...))
	}
	var late []Layer
	for id := vm.Base; id != "" && !s.IsFrozen(id); {
		l, err := s.Get(id)
		switch {
		case err != nil:
			return broken("its layer %s: %w", id, banger.Cause(err))
		case l.VM != vm.ID:
			return broken("its layer %s has no file", id)
		}
		late, id = append(late, l), l.Parent
	}
	for _, l := range slices.Backward(late) {
		if err := s.Freeze(l.ID); err != nil {
			return err
		}
	}
	return nil
}

// IsFrozen reports whether a layer has its file.
func (s *Store) IsFrozen(id string) bool {
	l, err := s.Get(id)
	if err != nil {
		return false
	}
	_, err = os.Lstat(l.file(s))
	return err == nil
}

// Abandon undoes Begin, when the VM's disk writes to the file of before.
func (s *Store) Abandon(vm, layer string) error {
	err := os.Remove(s.dirs.Disk(vm, layer))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, untrusted.RemoveAll(s.path(layer)), blob.Sync(s.dirs.Layers()))
}

// Sweep removes the layers that none of the layers in needed is made of, and returns them. If one of those cannot be
// read, it removes nothing, because it is not known what is beneath.
func (s *Store) Sweep(needed []string) (removed []Layer, err error) {
	keep := map[string]bool{}
	for _, id := range needed {
		for id != "" && !keep[id] {
			keep[id] = true
			l, err := s.Get(id)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			id = l.Parent
		}
	}
	entries, err := os.ReadDir(s.dirs.Layers())
	for _, e := range entries {
		l, gerr := s.Get(e.Name())
		switch {
		case keep[e.Name()]:
			continue
		case gerr != nil && !errors.Is(gerr, fs.ErrNotExist): // it may be of use to somebody who looks at it
			continue
		}
		if rerr := s.remove(e.Name()); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		removed = append(removed, l)
	}
	return removed, errors.Join(err, blob.Sync(s.dirs.Layers()))
}

// remove removes a layer, its description first.
func (s *Store) remove(id string) error {
	err := os.Remove(filepath.Join(s.path(id), infoFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(blob.Sync(s.path(id)), untrusted.RemoveAll(s.path(id)))
}

// tidy removes what is in a layer's directory besides its description and its file: a join that was cut off, or the
// file of before a join.
func (s *Store) tidy(l Layer) (err error) {
	entries, err := os.ReadDir(s.path(l.ID))
	for _, e := range entries {
		if e.Name() != infoFile && e.Name() != l.File {
			err = errors.Join(err, os.Remove(filepath.Join(s.path(l.ID), e.Name())))
		}
	}
	return err
}

// Tidy removes from a VM's directory the files of disks that were left there by what was cut off. It does nothing
// while the VM's disk may still be one of two files.
func (s *Store) Tidy(vm banger.VM) error {
	now := s.dirs.Disk(vm.ID, vm.Base)
	if vm.Base != "" && !s.IsFrozen(vm.Base) {
		return nil
	}
	if _, err := os.Lstat(now); err != nil { // the disk is not where it should be
		return nil
	}
	raw := filepath.Base(s.dirs.Disk(vm.ID, ""))
	entries, err := os.ReadDir(s.dirs.VM(vm.ID))
	for _, e := range entries {
		overlay, _ := filepath.Match(filepath.Base(s.dirs.Disk(vm.ID, "*")), e.Name())
		isDisk := overlay || e.Name() == raw || e.Name() == raw+nextSuffix
		if path := filepath.Join(s.dirs.VM(vm.ID), e.Name()); isDisk && path != now {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// Usage is what a layer takes.
type Usage struct {
	ID     string `json:"id"`
	Parent string `json:"parent,omitempty"`
	Bytes  int64  `json:"bytes"` // on the disk
}

// Measure returns what the layers in dirs take. It needs no Store.
func Measure(dirs vmdir.Dirs) []Usage {
	s, list := &Store{dirs: dirs}, []Usage{}
	entries, _ := os.ReadDir(dirs.Layers()) // without the directory there are none
	for _, e := range entries {
		l, _ := s.Get(e.Name())
		list = append(list, Usage{ID: e.Name(), Parent: l.Parent, Bytes: vmdir.Room(s.path(e.Name()))})
	}
	return list
}
