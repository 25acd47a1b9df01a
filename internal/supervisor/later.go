package supervisor

import (
	"context"
	"time"

	"banger"
	"banger/internal/parking"
)

// later is what a machine does by itself, by the rules of package parking.
type later struct{ *machine }

// plans is what only the owner knows of what comes later.
type plans struct {
	settled bool          // all VMs of an earlier daemon were taken over, so this one may change by itself
	asked   bool          // a user waits for the present start, so its failure is the user's
	pause   time.Duration // before the last restart
	again   time.Time     // when an action that has failed is tried again
}

// settle lets the VM change by itself. With restored, the daemon has just started.
func (m later) settle(ctx context.Context, restored bool) error {
	m.plans.settled = true
	if !restored || !parking.RestartsWithDaemon(m.Snapshot(), time.Now()) {
		return nil
	}
	m.Update(func(vm *banger.VM) { vm.RestartAt = time.Now().UTC() })
	return m.store(ctx, m.Snapshot())
}

// due returns a channel that tells when to call act, or nil.
func (m later) due() <-chan time.Time {
	_, wait, ok := parking.Next(m.Snapshot(), m.plans.again, time.Now())
	if !ok || !m.plans.settled {
		return nil
	}
	return time.After(wait)
}

// act does what is due now.
func (m later) act() {
	now := time.Now()
	next, wait, ok := parking.Next(m.Snapshot(), m.plans.again, now)
	if !ok || wait > 0 {
		return
	}
	m.log.Info("the VM is changed by itself", "action", next.Action)
	m.plans.again = time.Time{}
	err := m.carryOut(next.Action, "its time to live was over")
	if err != nil {
		m.plans.again = now.Add(time.Minute)
	}
	m.warn("an action that was due has failed; it is tried again", err)
}

// carryOut does something with the VM by itself, for a reason.
func (m later) carryOut(action, reason string) error {
	switch action {
	case banger.ActionStart:
		m.startAgain()
		return nil
	case banger.ActionSuspend:
		return sleeper(m).suspend(m.ctx)
	}
	m.halt()
	err := m.stop(m.ctx, m.grace(), reason)
	if err == nil && action == banger.ActionRemove && !m.IsGone() {
		err = m.remove()
	}
	return err
}

// ask notes that a user asks for a start. The restart policy and the time to live begin anew.
func (m later) ask() {
	m.plans = plans{settled: m.plans.settled, asked: true}
	m.Update(func(vm *banger.VM) {
		vm.LivesSince, vm.Halted, vm.Restarts, vm.RestartAt, vm.Expired = time.Time{}, false, 0, time.Time{}, false
	})
}

// halt notes that a user, or the end of a time, ends the VM, so its restart policy rests.
func (m later) halt() {
	vm := m.Snapshot()
	if vm.State.AtRest() && vm.RestartAt.IsZero() {
		return
	}
	m.Update(func(vm *banger.VM) { vm.Halted, vm.RestartAt = true, time.Time{} })
	if vm.State.AtRest() {
		m.warn("that the VM stays stopped was not stored; it is stored again", m.store(m.ctx, m.Snapshot()))
	}
}

// plan decides, before the end of the VM is stored, whether the VM starts again. failed says how it ends.
func (m later) plan(failed bool) {
	vm, now := m.Snapshot(), time.Now()
	failed = failed || vm.ExitCode != nil && *vm.ExitCode != 0
	if m.plans.asked || !parking.Restarts(vm, failed, now) {
		return
	}
	ran := time.Duration(0)
	if !vm.StartedAt.IsZero() {
		ran = now.Sub(vm.StartedAt)
	}
	m.plans.pause = parking.Backoff(m.plans.pause, ran)
	m.Update(func(vm *banger.VM) { vm.RestartAt = now.Add(m.plans.pause).UTC() })
}

// startAgain starts the VM by its restart policy. If it does not start, the policy decides once more.
func (m later) startAgain() {
	m.Update(func(vm *banger.VM) { vm.Restarts, vm.RestartAt = vm.Restarts+1, time.Time{} })
	m.startAlone("the VM did not start again")
	if vm := m.Snapshot(); vm.State.AtRest() && vm.RestartAt.IsZero() { // not even the state starting was stored
		m.plan(true)
		m.warn("the restart was not stored; it is stored again", m.store(m.ctx, m.Snapshot()))
	}
}

// startAlone boots the VM without a client. It can be interrupted, as any boot. An error is the reason of the VM's
// failure. Here it is only logged, because no client has asked for the boot.
func (m later) startAlone(problem string) {
	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	m.setInterrupt(cancel)
	defer m.setInterrupt(nil)
	m.warn(problem, m.startNow(ctx, false, banger.Discard))
}
