package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/parking"
	"banger/internal/resolve"
	"banger/internal/shim"
	"banger/internal/store"
	"banger/internal/text"
	"banger/internal/view"
	"banger/internal/vmdir"
	"banger/internal/vmm"
)

const (
	// stopSlack is the time that an emulated guest may need after the grace period to sync, unmount and power off.
	stopSlack = 20 * time.Second
	// attachWindow is the time in which an attached client must start the main command of its VM.
	attachWindow = time.Minute
)

// machine is one VM with its owner goroutine. Everything that changes the VM runs in loop, one operation at a time.
type machine struct {
	s      *Supervisor
	log    *slog.Logger
	slot   int
	ctx    context.Context // ends with the supervisor or the VM's removal
	cancel context.CancelFunc

	ops       chan func()
	ended     chan shim.Status // the VMM has ended
	mainEnded chan banger.Exit // the main command of this start has ended
	mainDone  chan struct{}    // closed when the wait for its end is over; nil without a main command
	alive     bool             // a VMM was started and its end was not yet seen; only the owner uses it
	reboots   parking.Reboots  // times of the guest's reboots; only the owner uses it
	recorder  *vmdir.Recorder  // only the owner uses it
	plans     plans            // only the owner uses them
	// again says when to repeat a failed store of the row. It is nil if the row is stored. Only the owner uses it.
	again <-chan time.Time

	*view.View
	mu        sync.Mutex
	interrupt context.CancelFunc // cancels the present operation, or nil; mu guards it
	mainSeen  bool               // the main command was started; mu guards it
}

// setState moves the VM to a state, stores it and then makes it visible, so a waiter who sees the end of a VM also
// finds it in the row. If the database fails, the VM does not begin to start or to run; it changes to other
// states anyway. Only the owner calls setState.
func (m *machine) setState(to banger.State, reason string) error {
	if err := m.checkState(to); err != nil {
		return err
	}
	next := m.Snapshot()
	next.State, next.Reason = to, text.Limit(reason, text.MaxError) // reason may quote a VMM or a guest
	switch {
	case to == banger.StateRunning && next.StartedAt.IsZero(): // a VM that goes on was started before
		next.StartedAt = time.Now().UTC()
		if next.LivesSince.IsZero() {
			next.LivesSince = next.StartedAt
		}
	case to.AtRest():
		next.FinishedAt = time.Now().UTC()
	}
	err := m.store(context.WithoutCancel(m.ctx), next)
	if err != nil && (to == banger.StateStarting || to == banger.StateResuming || to == banger.StateRunning) {
		return err
	}
	m.Update(func(vm *banger.VM) {
		vm.State, vm.Reason, vm.StartedAt, vm.FinishedAt = next.State, next.Reason, next.StartedAt, next.FinishedAt
		vm.LivesSince = next.LivesSince
	})
	return err
}

// checkState returns an error if the VM cannot change from its state to the state to.
func (m *machine) checkState(to banger.State) error {
	if vm := m.Snapshot(); vm.State != to && !vm.State.CanBecome(to) {
		return banger.Errorf(banger.CodeInternal, "VM %s cannot go from %s to %s", vm.Name, vm.State, to)
	}
	return nil
}

// loop is the owner goroutine.
func (m *machine) loop() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case f := <-m.ops:
			f()
		case st := <-m.ended:
			m.alive = false
			m.onVMMEnd(st.Exit)
		case exit := <-m.mainEnded:
			mainCommand{m}.onEnd(exit)
		case <-later{m}.due():
			later{m}.act()
		case <-m.again:
			m.warn("the row was not stored; it is stored again", m.store(m.ctx, m.Snapshot()))
		}
	}
}

// do runs f in the owner goroutine and returns its error. The context of f ends with ctx, with the supervisor, and
// when another operation interrupts it.
func (m *machine) do(ctx context.Context, f func(context.Context) error) error {
	result := make(chan error, 1)
	op := func() {
		opCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(m.ctx, cancel)()
		m.setInterrupt(cancel)
		defer m.setInterrupt(nil)
		result <- f(opCtx)
	}
	select {
	case m.ops <- op:
		return <-result
	case <-m.ctx.Done():
		return m.closedError()
	case <-ctx.Done():
		return banger.Canceled(ctx.Err())
	}
}

// change is like do, but fails while the VM is still being created.
func (m *machine) change(ctx context.Context, f func(context.Context) error) error {
	return m.do(ctx, func(ctx context.Context) error {
		if !m.IsCommitted() {
			return banger.Errorf(banger.CodeConflict, "VM %s is still being created", m.Snapshot().Name).
				WithHint("try again when it is there, or remove it: banger rm -f %s", m.Snapshot().Name)
		}
		return f(ctx)
	})
}

func (m *machine) closedError() error {
	if m.IsGone() {
		return banger.Errorf(banger.CodeNotFound, "VM %s no longer exists", m.Snapshot().Name)
	}
	return banger.Errorf(banger.CodeUnavailable, "the daemon is stopping")
}

// warn logs a failure that no client is told of. It does nothing if err is nil, or if the daemon closes.
func (m *machine) warn(what string, err error) {
	if err != nil && m.s.ctx.Err() == nil {
		m.log.Warn(what, "err", err)
	}
}

func (m *machine) setInterrupt(cancel context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.interrupt = cancel
}

// stopCurrent cancels the present operation, so a kill does not wait for a boot. A clean stop ignores the
// cancellation, so stopCurrent kills its VMM.
func (m *machine) stopCurrent(ctx context.Context) {
	m.mu.Lock()
	if m.interrupt != nil {
		m.interrupt()
	}
	stopping := m.Snapshot().State == banger.StateStopping
	m.mu.Unlock()
	if stopping {
		if err := m.s.shim(m.ID()).Kill(ctx); err != nil {
			m.log.Info("the VMM was not killed at once; its owner kills it", "err", err)
		}
	}
}

// grace returns how long a stop waits before it kills, if the client does not say.
func (m *machine) grace() time.Duration { return resolve.Grace(m.Snapshot().Spec) }

func (m *machine) agent() guest.Client { return reachable{m.s}.Agent(m.ID()) }

// Exit codes of VMs whose main command did not report one, as in docker.
const (
	killedCode = 128 + int(syscall.SIGKILL)
	failedCode = 125
)

// onExit records that the VMM has ended by itself, and the reason, with more appended. The VM has failed if its VMM
// was killed or has failed, or if the guest's kernel panicked.
func (m *machine) onExit(e vmm.Exit, more string) {
	if (sleeper{m}).isSuspended() {
		sleeper{m}.onSuspended()
		return
	}
	code := 0
	switch {
	case e.Signal != 0:
		code = 128 + e.Signal
	case e.Panic || e.Code != 0:
		code = failedCode
	}
	m.onEnd(e.Reason+more, code, code != 0)
}

// onEnd records that the VMM has ended. Only the VM's disk is left. code is used if the main command reported no exit
// code; 0 is not stored.
func (m *machine) onEnd(reason string, code int, failed bool) {
	vm := m.Snapshot()
	if vm.State.AtRest() {
		return
	}
	if exit, ok := (mainCommand{m}).takeExit(); ok {
		code = exit.Status()
		m.Update(func(vm *banger.VM) { vm.ExitCode = &code })
	} else if code != 0 && vm.ExitCode == nil {
		m.Update(func(vm *banger.VM) { vm.ExitCode = &code })
	}
	state := banger.StateStopped
	if failed && vm.State != banger.StateStopping { // a VM that was being stopped has not failed
		state = banger.StateFailed
	}
	if vm.State == banger.StateStopping && vm.Reason != "" {
		reason = vm.Reason
	}
	reason += m.s.groups().OutOfMemory(vm)
	m.leaveGroup()
	sleeper{m}.cleanSnapshots()
	link{m}.leave()
	m.log.Info("the VM has ended", "state", state, "reason", reason)
	later{m}.plan(state == banger.StateFailed)
	m.warn("the end of the VM was not stored; it is stored again", m.setState(state, reason))
	m.s.dirs.CleanRun(m.ID())
	if vm.Spec.AutoRemove {
		m.warn("the VM was not removed", m.remove())
	}
}

// stop shuts the guest down cleanly within grace, and otherwise kills the VMM. It does nothing for a VM at rest.
func (m *machine) stop(ctx context.Context, grace time.Duration, reason string) error {
	switch m.Snapshot().State {
	case banger.StateSuspended:
		return m.kill(ctx, reason)
	case banger.StatePaused: // its agent must answer
		m.warn("the VM was not resumed", sleeper{m}.unpause(ctx))
	}
	if m.Snapshot().State.AtRest() {
		return nil
	}
	if err := m.checkState(banger.StateStopping); err != nil {
		return err
	}
	// The VM must end even if this state cannot be stored.
	m.warn("the state stopping was not stored", m.setState(banger.StateStopping, reason))
	limit, cancel := context.WithTimeout(ctx, grace+stopSlack)
	defer cancel()
	err := m.answers(ctx, grace)
	if err == nil {
		err = m.agent().Shutdown(limit, grace)
	}
	if err != nil { // the VMM's end explains more than a broken connection
		limit, cancel = context.WithTimeout(limit, time.Second)
		defer cancel()
	}
	st, endErr := m.awaitEnd(limit)
	if endErr == nil {
		m.onExit(st.Exit, "")
		return nil
	}
	err = cmp.Or(err, endErr)
	if m.ctx.Err() != nil {
		return m.ctx.Err() // the daemon closes; the next one continues from the row
	}
	return m.kill(ctx, fmt.Sprintf("killed, because it did not shut down (%v)", err))
}

// answers returns an error if the agent does not answer within grace. Such an agent would not shut the guest down
// either.
func (m *machine) answers(ctx context.Context, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	_, err := m.agent().Ping(ctx)
	return err
}

// kill ends the VMM at once.
func (m *machine) kill(ctx context.Context, reason string) error {
	before := m.Snapshot().State
	if before.AtRest() {
		return nil
	}
	if err := m.checkState(banger.StateStopping); err != nil {
		return err
	}
	if before == banger.StateSuspended {
		if err := (sleeper{m}).forgetMemory(); err != nil {
			return err
		}
	}
	m.warn("the state stopping was not stored", m.setState(banger.StateStopping, reason)) // as in stop
	m.endVMM(ctx, before)
	if m.ctx.Err() != nil {
		return m.ctx.Err()
	}
	if (sleeper{m}).isSuspended() { // the kill has met a suspension that was almost done
		m.warn("the memory of the VM was not removed", sleeper{m}.forgetMemory())
	}
	m.onEnd(reason, killedCode, false)
	return nil
}

// endVMM ends the VMM of a VM that was in the given state. It continues when ctx ends.
func (m *machine) endVMM(ctx context.Context, state banger.State) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopSlack)
	defer cancel()
	if state == banger.StateUnreachable || m.s.shim(m.ID()).Kill(ctx) != nil {
		m.s.shims().Kill(m.ID(), adoptTimeout)
	}
	if _, err := m.awaitEnd(ctx); err != nil {
		m.warn("the VMM has not ended", err)
	}
}

// awaitEnd waits for the VMM's end. It returns at once if that was already seen.
func (m *machine) awaitEnd(ctx context.Context) (shim.Status, error) {
	if !m.alive {
		return shim.Status{Ended: true}, nil
	}
	select {
	case st := <-m.ended:
		m.alive = false
		return st, nil
	case <-ctx.Done():
		return shim.Status{}, ctx.Err()
	case <-m.ctx.Done():
		return shim.Status{}, m.ctx.Err()
	}
}

// remove deletes a VM at rest permanently. It marks the row as removed, removes the files, and then deletes the row.
// In this order a crash cannot leave files without a row, which would be kept.
func (m *machine) remove() error {
	ctx := context.WithoutCancel(m.ctx)
	if m.IsCommitted() { // otherwise the row has this mark from the beginning
		if err := m.s.opts.Reserve.Retry(func() error { return m.s.opts.Store.Undo(ctx, m.Snapshot()) }); err != nil {
			return store.Explain(err, m.s.opts.StateDir)
		}
	}
	m.s.shims().AwaitEnd(m.ID(), adoptTimeout) // it tells the end of the VMM a moment before its own
	err := m.s.dirs.Remove(m.ID())
	if err == nil {
		err = m.s.opts.Reserve.Retry(func() error { return m.s.opts.Store.Delete(ctx, m.ID()) })
		m.s.opts.Reserve.Refill()
	}
	m.s.forget(m)
	m.SetGone()
	m.cancel()
	if m.Snapshot().Base != "" {
		m.s.wg.Go(m.s.branches.Sweep)
	}
	return err
}

// discard undoes a creation at any stage.
func (m *machine) discard() error {
	err := m.do(context.WithoutCancel(m.ctx), func(ctx context.Context) error {
		if m.IsGone() {
			return nil
		}
		m.Update(func(vm *banger.VM) { vm.Spec.AutoRemove = false })
		if err := m.kill(ctx, "creation failed"); err != nil {
			return err
		}
		return m.remove()
	})
	if m.IsGone() { // another request may have removed it before the last files were made
		return m.s.dirs.Remove(m.ID())
	}
	return err
}

// await returns when done returns true, when the VM was removed (then gone is true), or when ctx ends.
func (m *machine) await(ctx context.Context, done func(banger.VM) bool) (vm banger.VM, gone bool, err error) {
	for {
		vm, gone, changed := m.See()
		if gone || done(vm) {
			return vm, gone, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return vm, false, banger.Canceled(ctx.Err())
		case <-m.ctx.Done():
			if !m.IsGone() {
				return vm, false, m.closedError()
			}
		}
	}
}

// leaveGroup ends all remaining processes of a VM that has ended, and removes its group.
func (m *machine) leaveGroup() {
	m.warn("the control group was not removed", m.s.groups().Remove(m.ID()))
	m.Update(func(vm *banger.VM) { vm.Limits = nil })
}
