package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/process"
	"banger/internal/shim"
	"banger/internal/vmdir"
)

// adoptTimeout bounds the request to one shim at the daemon's start.
const adoptTimeout = 5 * time.Second

// Restore takes over the VMs of an earlier daemon. It adopts running VMs, records how others ended, and undoes
// unfinished creations and removals. It sets aside directories without a row; running VMs without a row keep running.
// An empty database beside VMs is an error, before any effect. Problems returns what else could not be repaired.
func (s *Supervisor) Restore(ctx context.Context) error {
	rows, err := s.opts.Store.List(ctx)
	if err != nil {
		return err
	}
	claimed, undone := map[string]bool{}, map[string]bool{}
	for _, r := range rows {
		claimed[r.VM.ID] = r.Committed || r.Broken != nil
		undone[r.VM.ID] = !claimed[r.VM.ID]
		if r.Broken != nil {
			s.problem("the row of VM %s (%s) cannot be read (%v), so its files stay as they are", r.VM.Name, r.VM.ID, r.Broken)
		}
	}
	lost, err := s.dirs.Unknown(claimed)
	if err != nil {
		return err
	}
	if len(rows) == 0 && len(lost) > 0 {
		return banger.Errorf(banger.CodeConflict, "the database in %s knows no VM, but %d lie in %s; nothing was changed",
			s.opts.StateDir, len(lost), s.dirs.VMs()).
			WithHint("bring back their rows: banger recover; or, if nobody needs these VMs, remove %s", s.dirs.VMs())
	}
	if err := s.noteBoot(); err != nil {
		s.problem("it cannot be told whether the host has booted: %v", err)
	}
	// This comes first, because an orphan must not write to files of an adopted VM.
	s.sweep(claimed, undone, lost)
	s.networks.SetAdopting(true)
	defer s.networks.SetAdopting(false)
	var restored sync.WaitGroup
	for _, r := range rows {
		if !undone[r.VM.ID] && r.Broken == nil {
			restored.Go(func() { s.restoreOne(ctx, r.VM, r.Slot) })
		}
	}
	restored.Wait()
	s.networks.SetAdopting(false)
	s.networks.Sync(ctx) // Sync logs an error, and VMs of other networks do not depend on it
	return nil
}

// bootFile holds the boot id that the host had when the last daemon started.
const bootFile = "boot-id"

// noteBoot finds out whether the host has rebooted since the last daemon started.
func (s *Supervisor) noteBoot() error {
	path := filepath.Join(s.opts.StateDir, bootFile)
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.rebooted = err == nil && string(before) != s.opts.BootID
	if err == nil && !s.rebooted {
		return nil
	}
	return blob.WriteFile(path, 0o600, func(w io.Writer) error { _, err := io.WriteString(w, s.opts.BootID); return err })
}

func (s *Supervisor) problem(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

// Problems returns what Restore could not repair, and what is set aside, in sentences without a full stop.
func (s *Supervisor) Problems() []string {
	list := slices.Clone(s.problems)
	for _, dir := range s.dirs.Aside() {
		list = append(list, fmt.Sprintf("no row claims the VM in %s, which was set aside", dir))
	}
	return list
}

// restoreOne adopts one VM by asking its shim for its status.
func (s *Supervisor) restoreOne(ctx context.Context, vm banger.VM, slot int) {
	if vm.State.AtRest() {
		m := s.adoptRow(vm, slot)
		if vm.Spec.AutoRemove && vm.State != banger.StateCreated {
			s.wg.Go(func() { m.do(m.ctx, func(context.Context) error { return m.remove() }) })
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	st, err := s.shim(vm.ID).Status(ctx)
	m := s.adoptRow(vm, slot)
	mainCommand{m}.setSeen(true)
	if err != nil && s.hasShim(vm.ID) {
		m.update(func(vm *banger.VM) { vm.State, vm.Reason = banger.StateUnreachable, "its shim does not answer" })
		s.wg.Go(func() { m.awaitAnswer(vm) })
		return
	}
	alive := err == nil && !st.Ended && st.Shim.Alive()
	if err != nil {
		st = s.lastExit(vm.ID, err)
	}
	resume := func() {
		m.do(m.ctx, func(ctx context.Context) error { return m.resume(ctx, vm.State, alive, st) })
	}
	if alive && vm.State == banger.StateStopping {
		s.wg.Go(resume) // this takes time
		return
	}
	resume()
}

// hasShim reports whether the shim of a VM exists as a process, even if it does not answer.
func (s *Supervisor) hasShim(id string) (found bool) {
	s.eachShim(func(other string, _ int) { found = found || other == id })
	return found
}

// askAgain is the pause between two requests to a shim that does not answer. The shim may be stopped, or its host may
// be swapping.
const askAgain = time.Second

// awaitAnswer asks an unreachable VM's shim until it answers or has ended. It then continues from the VM's stored
// state.
func (m *machine) awaitAnswer(stored banger.VM) {
	for over := false; !over; {
		st, err := m.s.shim(stored.ID).Status(m.ctx)
		if err == nil || !m.s.hasShim(stored.ID) {
			alive := err == nil && !st.Ended && st.Shim.Alive()
			if err != nil {
				st = m.s.lastExit(stored.ID, err)
			}
			m.do(m.ctx, func(ctx context.Context) error {
				if over = m.snapshot().State != banger.StateUnreachable; over {
					return nil // another operation has ended the VM
				}
				m.update(func(vm *banger.VM) { vm.State, vm.Reason = stored.State, stored.Reason })
				over = true
				return m.resume(ctx, stored.State, alive, st)
			})
		}
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(askAgain):
		}
	}
}

// adoptRow is like adopt, for a VM whose creation has succeeded. It also writes the VM's record.
func (s *Supervisor) adoptRow(vm banger.VM, slot int) *machine {
	m := s.adopt(vm, slot)
	m.mu.Lock()
	m.committed = true
	m.mu.Unlock()
	m.do(m.ctx, func(context.Context) error {
		m.record(vm)
		return nil
	})
	return m
}

// resume continues, in the owner, from the state that the dead daemon stored.
func (m *machine) resume(ctx context.Context, state banger.State, alive bool, st shim.Status) error {
	if !alive {
		m.s.killProcesses(m.id())
		if reason := m.snapshot().Reason; reason != "" {
			st.Exit.Reason = reason
		}
		m.onExit(st.Exit, ", while no daemon ran")
		return nil
	}
	m.alive = true
	m.s.wg.Go(m.watch)
	switch state {
	case banger.StateRunning, banger.StatePaused:
		if m.snapshot().Main != nil {
			mainCommand{m}.watch()
		}
		return nil
	case banger.StateStopping:
		return m.stop(ctx, defaultGrace, m.snapshot().Reason)
	}
	return m.kill(ctx, "the daemon died while it was starting")
}

// sweep ends and removes the VMs in undone, and sets aside those in lost that do not run.
func (s *Supervisor) sweep(claimed, undone map[string]bool, lost []string) {
	kept := maps.Clone(claimed)
	err := s.eachShim(func(id string, pid int) {
		switch {
		case undone[id]:
			process.KillOwn(pid, adoptTimeout)
		case !claimed[id]:
			kept[id] = true
			s.problem("VM %s runs as process %d, and no row claims it", id, pid)
		}
	})
	err = errors.Join(err, s.sweepGroups(kept))
	for id, gone := range undone {
		if !gone {
			continue
		}
		uerr := s.dirs.Remove(id)
		if uerr == nil {
			uerr = s.opts.Store.Delete(s.ctx, id)
		}
		err = errors.Join(err, uerr)
	}
	for _, id := range lost {
		if !kept[id] {
			err = errors.Join(err, s.dirs.SetAside(id))
		}
	}
	err = errors.Join(err, s.dirs.Sweep(kept))
	if err != nil {
		s.problem("what is left of VMs that are gone could not be removed: %v", err)
	}
}

// killProcesses ends the shim of one VM without its cooperation. The VMM ends with the shim.
func (s *Supervisor) killProcesses(id string) {
	s.eachShim(func(found string, pid int) {
		if found == id {
			process.KillOwn(pid, adoptTimeout)
		}
	})
}

// eachShim calls f for each of our processes whose command line is that of a shim of this state directory.
func (s *Supervisor) eachShim(f func(id string, pid int)) error {
	return eachShim(s.opts.StateDir, s.opts.ShimArgv, f)
}

// Running reports whether a VM of a state directory runs, with or without a daemon. argv is the command that starts
// shims.
func Running(stateDir string, argv []string) (found bool) {
	eachShim(stateDir, argv, func(string, int) { found = true })
	return found
}

// eachShim calls f for each shim of a state directory. A shim with a jail starts as root.
func eachShim(stateDir string, argv []string, f func(id string, pid int)) error {
	ours := func(uid uint32) bool {
		return uid == 0 || int(uid) == os.Geteuid() || os.Geteuid() == 0 && uid >= firstUID
	}
	return process.Each(argv, ours, func(dir string, pid int) {
		if id := filepath.Base(dir); filepath.Dir(dir) == (vmdir.Dirs{State: stateDir}).VMs() && banger.ValidID(id) {
			f(id, pid)
		}
	})
}
