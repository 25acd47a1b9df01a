// Package parking has the rules by which a daemon starts, stops, suspends and removes VMs by itself: restart policies
// and times to live. Its functions depend only on their arguments.
//
// It must not know how a VM is started or stopped, nor read a clock.
package parking

import (
	"slices"
	"time"

	"banger"
)

// The pause before a restart begins with minBackoff and doubles up to maxBackoff. It begins anew after a VM that has
// run for longRun. The numbers are docker's.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = time.Minute
	longRun    = 10 * time.Second
)

// Backoff returns the pause before a restart. last was the pause before, and ran is how long the VM has run since.
func Backoff(last, ran time.Duration) time.Duration {
	if last == 0 || ran >= longRun {
		return minBackoff
	}
	return min(2*last, maxBackoff)
}

// Restarts reports whether a VM that has just ended starts again. failed says how it ended.
func Restarts(vm banger.VM, failed bool, now time.Time) bool {
	p := vm.Spec.Restart
	switch {
	case vm.Halted || ended(vm, now):
		return false
	case p.Name == banger.RestartOnFailure:
		return failed && (p.Max == 0 || vm.Restarts < p.Max)
	}
	return p.Name == banger.RestartAlways
}

// RestartsWithDaemon reports whether a VM that does not run starts because the daemon starts.
func RestartsWithDaemon(vm banger.VM, now time.Time) bool {
	return vm.Spec.Restart.Name == banger.RestartAlways && vm.State.AtRest() && vm.State != banger.StateCreated &&
		vm.RestartAt.IsZero() && !ended(vm, now)
}

// ended reports whether the time to live of the VM is over, and it may not run any more.
func ended(vm banger.VM, now time.Time) bool {
	at := over(vm)
	return vm.Spec.TTL.Action != banger.ActionSuspend && !at.IsZero() && !at.After(now)
}

// over returns when the VM's time to live is over, or the zero time if it has none.
func over(vm banger.VM) time.Time {
	if vm.Spec.TTL.Seconds == 0 || vm.LivesSince.IsZero() || vm.Expired {
		return time.Time{}
	}
	return vm.LivesSince.Round(0).Add(vm.Spec.TTL.After()) // by the wall clock, which goes on while the host sleeps
}

// Expired reports whether the time to live of a VM that goes on now is over. Such a VM is not suspended again for it.
func Expired(vm banger.VM, now time.Time) bool {
	at := over(vm)
	return vm.Expired || vm.Spec.TTL.Action == banger.ActionSuspend && !at.IsZero() && !at.After(now)
}

// Due returns what the daemon will do by itself with the VM as it is, in the order of the times. What depends on use
// comes last.
func Due(vm banger.VM) (list []banger.Due) {
	if !vm.RestartAt.IsZero() {
		list = append(list, banger.Due{Action: banger.ActionStart, At: vm.RestartAt})
	}
	if at := over(vm); !at.IsZero() && changes(vm.Spec.TTL.Action, vm.State) {
		list = append(list, banger.Due{Action: vm.Spec.TTL.Action, At: at})
	}
	slices.SortStableFunc(list, func(a, b banger.Due) int { return a.At.Compare(b.At) })
	if idle := vm.Spec.Idle; idle.Seconds != 0 && vm.State == banger.StateRunning {
		list = append(list, banger.Due{Action: idle.Action, Idle: idle.Seconds})
	}
	for i := range list {
		if list[i].Action == banger.ActionSuspend && len(vm.Secrets) > 0 {
			list[i].Blocked = "it has secrets"
		}
	}
	return list
}

// WhenIdle returns what is done with the VM, as it is, when nobody has used it for a time, or "".
func WhenIdle(vm banger.VM) string {
	for _, d := range Due(vm) {
		if d.Idle != 0 && d.Blocked == "" {
			return d.Action
		}
	}
	return ""
}

// changes reports whether an action does anything to a VM in a state.
func changes(action string, state banger.State) bool {
	switch action {
	case banger.ActionStop:
		return !state.AtRest()
	case banger.ActionSuspend:
		return !state.AtRest() && state != banger.StateSuspended
	}
	return state != banger.StateCreated
}

// longWait is the maximum time for which a daemon waits without a look at the clock.
const longWait = time.Minute

// Next returns what is due next, and how long the daemon waits before it looks again. After a failed action, the next
// one comes at again at the earliest. ok is false if nothing is due, or if the VM changes now.
func Next(vm banger.VM, again, now time.Time) (next banger.Due, wait time.Duration, ok bool) {
	switch vm.State {
	case banger.StateRunning, banger.StatePaused, banger.StateSuspended, banger.StateStopped, banger.StateFailed:
	default:
		return next, 0, false
	}
	list := slices.DeleteFunc(Due(vm), func(d banger.Due) bool { return d.Blocked != "" })
	if len(list) == 0 || list[0].At.IsZero() {
		return next, 0, false
	}
	next = list[0]
	if again.After(next.At) {
		next.At = again
	}
	return next, min(max(next.At.Sub(now), 0), longWait), true
}
