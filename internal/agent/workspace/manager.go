// Package workspace keeps trees of the host in a guest. A workspace is a baseline, a file system in a file that never
// changes, with an overlay on it that a program sees at a path. The overlay's upper directory has all that was
// changed. All of it is in a directory of the VM's own disk, so that a later boot, a suspended VM and its forks have
// it, too.
//
// The baseline comes from a client, and everything else is the guest's. No symlink is followed, and all is bounded.
// The package must not know where that directory is, how a request came, nor what a client makes of the changes.
package workspace

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/console"
	"banger/internal/guest"
)

// Manager has the workspaces of one guest.
type Manager struct {
	load func(module string) error // loads a module of the kernel

	mu  sync.Mutex
	dir string                // "" before Open
	all map[string]*workspace // by name; those that are being made included
}

// workspace is one of them. m.mu guards all but op.
type workspace struct {
	m  *Manager
	op sync.Mutex // held by what changes it; taken before m.mu

	record
	ready bool   // it is made
	gone  bool   // it is removed
	dev   uint64 // the device of its overlay; 0 means that it is not mounted
}

// New returns a manager without workspaces. load loads a module of the kernel.
func New(load func(module string) error) *Manager {
	return &Manager{load: load, all: map[string]*workspace{}}
}

// Open makes dir the directory of the workspaces, and mounts those that are there. It is called once, before a
// program runs. One that cannot be mounted stays, with an error. What was not made to its end goes.
func (m *Manager) Open(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dir = dir
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		console.Warn(fmt.Errorf("reading the workspaces: %w", err))
	}
	for _, e := range entries {
		id := e.Name()
		if guest.CheckWorkspaceID(id) != nil || len(m.all) == guest.MaxWorkspaces {
			continue
		}
		r, err := m.loadRecord(id)
		if errors.Is(err, fs.ErrNotExist) {
			err = os.RemoveAll(filepath.Join(dir, id))
			if err != nil {
				console.Warn(fmt.Errorf("removing an unfinished workspace: %w", err))
			}
			continue
		}
		w := &workspace{m: m, record: r, ready: true}
		if err == nil {
			m.removeOld(w)
			err = w.mount()
		}
		if err != nil {
			w.Error = banger.Cause(err).Error()
			console.Warn(fmt.Errorf("mounting the workspace %s: %w", w.Name, err))
		}
		m.all[w.Name] = w
	}
}

// List returns all workspaces, the newest first.
func (m *Manager) List() []banger.Workspace {
	mounts := readMounts()
	m.mu.Lock()
	list := []banger.Workspace{}
	for _, w := range m.all {
		if !w.ready {
			continue
		}
		one := w.Workspace
		if one.Error == "" && len(mounts.of(w.shown())) == 0 {
			one.Error = "it was unmounted in the VM; a reset or the next start of the VM mounts it again"
		}
		list = append(list, one)
	}
	m.mu.Unlock()
	return sorted(list)
}

// sorted sorts workspaces, the newest first.
func sorted(list []banger.Workspace) []banger.Workspace {
	slices.SortFunc(list, func(a, b banger.Workspace) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.Name, b.Name))
	})
	return list
}

// Home returns the path of the workspace in which commands start: the only one that is mounted, or else the one that
// is called workspace. It returns "" without such a workspace.
func (m *Manager) Home() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var mounted []string
	for _, w := range m.all {
		if !w.ready || w.dev == 0 {
			continue
		}
		if w.Name == "workspace" {
			return w.Path
		}
		mounted = append(mounted, w.Path)
	}
	if len(mounted) != 1 {
		return ""
	}
	return mounted[0]
}

// hold returns the workspace with a name, whose op is held.
func (m *Manager) hold(name string) (*workspace, error) {
	m.mu.Lock()
	w := m.all[name]
	if w == nil || !w.ready {
		m.mu.Unlock()
		return nil, notFound(name)
	}
	m.mu.Unlock()
	w.op.Lock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.gone {
		w.op.Unlock()
		return nil, notFound(name)
	}
	return w, nil
}

func notFound(name string) error {
	return banger.Errorf(banger.CodeNotFound, "the VM has no workspace %.80q", name).
		WithHint("see: banger workspace ls VM")
}

// Update removes files of a workspace, and then sets what it is based on. Directories that become empty go too, as
// git does it. A file that is gone already is no error. What was written in the workspace before is on the disk by
// then: a baseline never names files that a power cut takes back.
func (m *Manager) Update(name, baseline string, removed [][]byte) (banger.Workspace, error) {
	if err := guest.CheckBaseline(baseline); err != nil {
		return banger.Workspace{}, err
	}
	w, err := m.hold(name)
	if err != nil {
		return banger.Workspace{}, err
	}
	defer w.op.Unlock()
	if err := w.removeFiles(removed); err != nil {
		return banger.Workspace{}, failed("removing files of", w.Name, err)
	}
	if err := w.sync(); err != nil {
		return banger.Workspace{}, failed("writing", w.Name, err)
	}
	r := w.record
	r.Baseline = baseline
	if err := w.store(r); err != nil {
		return banger.Workspace{}, failed("storing", w.Name, err)
	}
	return r.Workspace, nil
}

// store makes r the record of the workspace. w.op is held.
func (w *workspace) store(r record) error {
	if err := r.write(w.path()); err != nil {
		return err
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.record = r
	return nil
}

// failed returns the error for a workspace with which something could not be done.
func failed(doing, name string, err error) error {
	if _, ok := errors.AsType[*banger.Error](err); ok {
		return err
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return banger.Errorf(banger.CodeNoSpace, "the VM's disk has no room for the workspace %s", name).
			WithHint("remove files in the VM, or give it a larger disk")
	}
	return banger.Errorf(banger.CodeGuest, "%s the workspace %s: %w", doing, name, banger.Cause(err))
}

// Reset takes back all changes: the workspace gets a new upper directory. Processes that are in the old tree stay
// there, and the answer says how many they are.
func (m *Manager) Reset(name string) (banger.Workspace, error) {
	w, err := m.hold(name)
	if err != nil {
		return banger.Workspace{}, err
	}
	defer w.op.Unlock()
	old := w.dev
	if err := w.renew(); err != nil {
		return banger.Workspace{}, failed("resetting", w.Name, err)
	}
	answer := w.Workspace
	answer.InOld = processesIn(old)
	m.removeOld(w)
	return answer, nil
}

// renew mounts the workspace with a new upper directory. w.op is held. After an error the old one is still there,
// unless the workspace has the error then.
func (w *workspace) renew() (err error) {
	if err := w.mountBase(); err != nil {
		return err
	}
	r := w.record
	r.Generation, r.Error = r.Generation+1, ""
	stored := false
	defer func() {
		if err != nil && !stored {
			os.RemoveAll(w.generation(r.Generation))
		}
	}()
	if err := w.makeUpper(r.Generation); err != nil {
		return err
	}
	fresh, dev, err := w.overlay(r.Generation)
	if err != nil {
		return err
	}
	defer unix.Close(fresh)
	if err := readMounts().uncovered(w.shown()); err != nil {
		return err
	}
	if err := w.store(r); err != nil {
		return err
	}
	stored = true
	if err = readMounts().unmount(w.shown(), unix.MNT_DETACH); err == nil {
		err = w.show(fresh)
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.dev = dev
	if err != nil {
		w.dev, w.Error = 0, banger.Cause(err).Error()
	}
	return err
}

// Remove removes a workspace with its changes. With force it does so while processes use it.
func (m *Manager) Remove(name string, force bool) error {
	w, err := m.hold(name)
	if err != nil {
		return err
	}
	defer w.op.Unlock()
	flags := 0
	if force {
		flags = unix.MNT_DETACH
	}
	err = readMounts().unmount(w.shown(), flags)
	if errors.Is(err, unix.EBUSY) {
		return banger.Errorf(banger.CodeConflict, "the workspace %s is in use in the VM", w.Name).
			WithHint("end the processes that are in %s or have files of it open, or use --force", w.Path)
	}
	if err != nil {
		return failed("unmounting", w.Name, err)
	}
	unix.Unmount(w.base(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	m.mu.Lock()
	w.dev = 0
	m.mu.Unlock()
	if err := removeRecord(w.path()); err != nil {
		return failed("removing", w.Name, err)
	}
	m.forget(w)
	if err := os.RemoveAll(w.path()); err != nil { // the next boot tries again
		console.Warn(fmt.Errorf("removing the workspace %s: %w", w.Name, err))
	}
	return nil
}

// forget takes a workspace out of the list.
func (m *Manager) forget(w *workspace) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.gone = true
	delete(m.all, w.Name)
}

// reserve makes a workspace that is not ready, whose name and path nobody else gets.
func (m *Manager) reserve(it banger.Workspace) (*workspace, error) {
	if err := guest.CheckNewWorkspace(it); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.dir == "":
		return nil, banger.Errorf(banger.CodeConflict, "the VM is still starting, or has no disk of its own")
	case len(m.all) >= guest.MaxWorkspaces:
		return nil, banger.Errorf(banger.CodeConflict, "the VM has %d workspaces, and can have no more",
			guest.MaxWorkspaces).WithHint("remove one: banger workspace rm VM/WORKSPACE")
	case m.all[it.Name] != nil:
		return nil, banger.Errorf(banger.CodeConflict, "the VM has a workspace %s already", it.Name).
			WithHint("use another name, or remove it: banger workspace rm VM/%s", it.Name)
	}
	for _, w := range m.all {
		if w.ID == it.ID {
			return nil, banger.Errorf(banger.CodeConflict, "the VM has a workspace with the id %s already", it.ID).
				WithHint("use another id")
		}
		if guest.Within(it.Path, w.Path) || guest.Within(w.Path, it.Path) {
			return nil, banger.Errorf(banger.CodeConflict, "a workspace cannot be at %s, because the workspace %s is at %s",
				it.Path, w.Name, w.Path).WithHint("use another path")
		}
	}
	it.Created, it.Error, it.InOld = time.Now().UTC(), "", 0
	w := &workspace{m: m, record: record{Workspace: it, Generation: 1}}
	m.all[it.Name] = w
	return w, nil
}
