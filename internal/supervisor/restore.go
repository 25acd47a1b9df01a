package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/internal/process"
	"banger/internal/shim"
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
	r := restoration{s, map[string]bool{}, map[string]bool{}}
	for _, row := range rows {
		r.claimed[row.VM.ID] = row.Committed || row.Broken != nil
		r.undone[row.VM.ID] = !r.claimed[row.VM.ID]
		if row.Broken != nil {
			r.problem("the row of VM %s (%s) cannot be read (%v), so its files stay as they are", row.VM.Name, row.VM.ID,
				row.Broken)
		}
	}
	lost, err := s.dirs.Unknown(r.claimed)
	if err != nil {
		return err
	}
	if len(rows) == 0 && len(lost) > 0 {
		return banger.Errorf(banger.CodeConflict, "the database in %s knows no VM, but %d lie in %s; nothing was changed",
			s.opts.StateDir, len(lost), s.dirs.VMs()).
			WithHint("bring back their rows: banger recover; or, if nobody needs these VMs, remove %s", s.dirs.VMs())
	}
	if s.rebooted, err = s.dirs.NoteBoot(s.opts.BootID); err != nil {
		r.problem("it cannot be told whether the host has booted: %v", err)
	}
	// This comes first, because an orphan must not write to files of an adopted VM.
	r.sweep(lost)
	s.networks.SetAdopting(true)
	defer s.networks.SetAdopting(false)
	var restored sync.WaitGroup
	for _, row := range rows {
		if !r.undone[row.VM.ID] && row.Broken == nil {
			restored.Go(func() { r.adopt(ctx, row.VM, row.Slot) })
		}
	}
	restored.Wait()
	s.networks.SetAdopting(false)
	s.wg.Go(func() { parker{s}.watcher().Run(s.ctx) })
	s.wg.Go(func() { s.warm.Run(s.ctx) })
	for _, m := range (parker{s}).all() {
		s.wg.Go(func() {
			settle := func(ctx context.Context) error { return later{m}.settle(ctx, true) }
			m.warn("the VM does not start with the daemon", m.do(m.ctx, settle))
		})
	}
	s.wg.Go(func() { s.branches.Sweep(); s.branches.Run(s.ctx) })
	if err := s.networks.Sync(ctx); err != nil { // VMs of other networks do not depend on it
		s.opts.Log.Warn("the networks of VMs were not brought up to date; it is tried again", "err", err)
	}
	return nil
}

// restoration is the work of one Restore.
type restoration struct {
	s       *Supervisor
	claimed map[string]bool // VMs that have a row, by id
	undone  map[string]bool // VMs whose creation or removal was not finished, by id
}

// problem keeps a sentence for Problems.
func (r restoration) problem(format string, args ...any) {
	r.s.problems = append(r.s.problems, fmt.Sprintf(format, args...))
}

// Problems returns what Restore could not repair, and what is set aside, in sentences without a full stop.
func (s *Supervisor) Problems() []string {
	list := slices.Clone(s.problems)
	for _, dir := range s.dirs.Aside() {
		list = append(list, fmt.Sprintf("no row claims the VM in %s, which was set aside", dir))
	}
	return list
}

// adopt adopts one VM by asking its shim for its status.
func (r restoration) adopt(ctx context.Context, vm banger.VM, slot int) {
	s := r.s
	if vm.State.AtRest() || vm.State == banger.StateSuspended {
		m := r.adoptRow(vm, slot)
		takeOver := func() { m.warn("the VM was not taken over as it was", m.do(m.ctx, sleeper{m}.takeOver)) }
		if vm.Restoring != "" {
			s.wg.Go(takeOver)
			return
		}
		takeOver()
		vm = m.Snapshot()
		if vm.Spec.AutoRemove && vm.State != banger.StateCreated && vm.State != banger.StateSuspended {
			s.wg.Go(func() {
				m.warn("the VM was not removed", m.do(m.ctx, func(context.Context) error { return m.remove() }))
			})
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	st, err := s.shim(vm.ID).Status(ctx)
	m := r.adoptRow(vm, slot)
	mainCommand{m}.setSeen(true)
	if err != nil && s.shims().Has(vm.ID) {
		m.Update(func(vm *banger.VM) { vm.State, vm.Reason = banger.StateUnreachable, "its shim does not answer" })
		s.wg.Go(func() { m.awaitAnswer(vm) })
		return
	}
	alive := err == nil && !st.Ended && st.Shim.Alive()
	if err != nil {
		st = s.shim(vm.ID).Lost(s.rebooted, err)
	}
	takeOver := func() {
		err := m.do(m.ctx, func(ctx context.Context) error { return m.takeOver(ctx, vm.State, alive, st) })
		m.warn("the VM was not taken over as it was", err)
	}
	if vm.Restoring != "" || alive && (slices.Contains(takesTime, vm.State) || !s.branches.IsSettled(vm)) {
		s.wg.Go(takeOver)
		return
	}
	takeOver()
}

// takeOver takes over a VM without a VMM.
func (m sleeper) takeOver(ctx context.Context) error {
	if m.Snapshot().Restoring != "" {
		return m.s.branches.Complete(ctx, owned(m))
	}
	m.cleanSnapshots()
	return m.matchMemory(ctx)
}

// takesTime are the states that a daemon completes while it answers already.
var takesTime = []banger.State{banger.StateStopping, banger.StateSuspending, banger.StateResuming}

// matchMemory makes the state of a VM without a VMM fit what is there: a VM with a snapshot is suspended, and waits for
// its use.
func (m sleeper) matchMemory(context.Context) error {
	switch suspended := m.Snapshot().State == banger.StateSuspended; {
	case !suspended && !m.isSuspended():
		return nil
	case !m.isSuspended():
		m.onEnd("its memory is gone", 0, false)
		return nil
	}
	problem := m.openDoor()
	if vm := m.Snapshot(); vm.State == banger.StateSuspended && vm.Reason == problem {
		return nil
	}
	m.Update(func(vm *banger.VM) { vm.State, vm.Reason, vm.FinishedAt = banger.StateSuspended, problem, time.Time{} })
	return m.store(m.ctx, m.Snapshot())
}

// askAgain is the pause between two requests to a shim that does not answer. The shim may be stopped, or its host may
// be swapping.
const askAgain = time.Second

// awaitAnswer asks an unreachable VM's shim until it answers or has ended. It then continues from the VM's stored
// state.
func (m *machine) awaitAnswer(stored banger.VM) {
	for over := false; !over; {
		st, err := m.s.shim(stored.ID).Status(m.ctx)
		if err == nil || !m.s.shims().Has(stored.ID) {
			alive := err == nil && !st.Ended && st.Shim.Alive()
			if err != nil {
				st = m.s.shim(stored.ID).Lost(m.s.rebooted, err)
			}
			err = m.do(m.ctx, func(ctx context.Context) error {
				if over = m.Snapshot().State != banger.StateUnreachable; over {
					return nil // another operation has ended the VM
				}
				m.Update(func(vm *banger.VM) { vm.State, vm.Reason = stored.State, stored.Reason })
				over = true
				return m.takeOver(ctx, stored.State, alive, st)
			})
			m.warn("the VM was not taken over as it was", err)
		}
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(askAgain):
		}
	}
}

// adoptRow is like adopt, for a VM whose creation has succeeded. It also writes the VM's record.
func (r restoration) adoptRow(vm banger.VM, slot int) *machine {
	m := r.s.adopt(vm, slot)
	m.SetCommitted()
	err := m.do(m.ctx, func(context.Context) error {
		m.record(vm)
		return nil
	})
	m.warn("the record was not written", err)
	return m
}

// takeOver continues, in the owner, from the state that the dead daemon stored.
func (m *machine) takeOver(ctx context.Context, state banger.State, alive bool, st shim.Status) error {
	if !alive {
		m.s.shims().Kill(m.ID(), adoptTimeout)
		if reason := m.Snapshot().Reason; reason != "" {
			st.Exit.Reason = reason
		}
		undo := m.keep(m.Snapshot().Restoring != "")
		m.onExit(st.Exit, ", while no daemon ran")
		undo()
		return m.s.branches.Complete(ctx, owned{m})
	}
	m.alive = true
	m.s.wg.Go(m.watch)
	if m.Snapshot().Restoring != "" && state != banger.StateResuming {
		return m.s.branches.Complete(ctx, owned{m})
	}
	switch state {
	case banger.StateRunning, banger.StatePaused, banger.StateSuspending:
		m.warn("a snapshot that was cut off was not tidied up", m.s.branches.Settle(ctx, owned{m}))
		if state == banger.StatePaused { // its snapshot may have let it go on
			m.warn("the VM is not paused", m.s.shim(m.ID()).Pause(ctx))
		}
		mainCommand{m}.watch()
		if state == banger.StateSuspending {
			return sleeper{m}.suspendNow(ctx)
		}
		return nil
	case banger.StateResuming:
		key, _, err := m.s.launcher.HostKey(m.ID())
		return sleeper{m}.goOn(ctx, m.launch(banger.Discard), key, err)
	case banger.StateStopping:
		return m.stop(ctx, m.grace(), m.Snapshot().Reason)
	}
	return m.kill(ctx, "the daemon died while it was starting")
}

// sweep ends and removes undone VMs, and sets aside those in lost that do not run.
func (r restoration) sweep(lost []string) {
	s, kept := r.s, maps.Clone(r.claimed)
	err := s.shims().Each(func(id string, pid int) {
		switch {
		case r.undone[id]:
			process.KillOwn(pid, adoptTimeout)
		case !r.claimed[id]:
			kept[id] = true
			r.problem("VM %s runs as process %d, and no row claims it", id, pid)
		}
	})
	err = errors.Join(err, s.groups().Sweep(kept))
	for id, gone := range r.undone {
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
		r.problem("what is left of VMs that are gone could not be removed: %v", err)
	}
}
