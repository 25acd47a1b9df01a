package view

import (
	"strings"
	"testing"
	"time"

	"banger"
)

// TestRows shows what the table of VMs says of their states and ports.
func TestRows(t *testing.T) {
	t.Parallel()
	three, ago := 3, time.Now().Add(-3*time.Minute-time.Second)
	web := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", HostPort: 8080, GuestPort: 80}
	for want, vm := range map[string]banger.VM{
		"stopped (3), 3 min ago -": {State: banger.StateStopped, ExitCode: &three, FinishedAt: ago},
		"stopped -":                {State: banger.StateStopped},
		"failed: it has a reason -": {State: banger.StateFailed, Reason: "it has a reason",
			Forwards: []banger.Forward{web}},
		"failed -": {State: banger.StateFailed},
		"running, 3 min 127.0.0.1:8080->80/tcp": {State: banger.StateRunning, StartedAt: ago,
			Forwards: []banger.Forward{web}},
	} {
		row := (&listOptions{}).row(vm)
		if got := strings.Join(row[4:6], " "); got != want {
			t.Errorf("the state and the ports are %q, not %q", got, want)
		}
	}
}

// TestARunningVMSaysWhetherItWorks shows restarts by the policy, and what the ready probe has seen.
func TestARunningVMSaysWhetherItWorks(t *testing.T) {
	t.Parallel()
	for want, vm := range map[string]banger.VM{
		"":                             {},
		", 1 restart":                  {Restarts: 1},
		", 3 restarts (ready)":         {Restarts: 3, Readiness: &banger.Readiness{Ready: true}},
		" (starting)":                  {Readiness: &banger.Readiness{}},
		" (not ready: nobody \\x1b[m)": {Readiness: &banger.Readiness{Reason: "nobody \x1b[m"}},
	} {
		vm.State, vm.StartedAt = banger.StateRunning, time.Now()
		if got := strings.TrimPrefix(state(vm), "running, 0 s"); got != want {
			t.Errorf("it is %q, not %q", got, want)
		}
	}
}

// TestWhatWillHappen shows what the daemon will do with a VM by itself, in a list and at once.
func TestWhatWillHappen(t *testing.T) {
	t.Parallel()
	now := time.Now()
	after := func(action string, d time.Duration) banger.Due { return banger.Due{Action: action, At: now.Add(d)} }
	for want, list := range map[string][]banger.Due{
		"":                                 nil,
		" (removed in 6 h)":                {after(banger.ActionRemove, 6*time.Hour)},
		" (stopped in 0 s)":                {after(banger.ActionStop, -time.Hour)},
		" (suspended in 59 min)":           {after(banger.ActionSuspend, time.Hour-1)},
		" (suspends when idle for 15 min)": {{Action: banger.ActionSuspend, Idle: 900}},
		" (removed in 6 h, stops when idle for 1 min)": {after(banger.ActionRemove, 6*time.Hour),
			{Action: banger.ActionStop, Idle: 90}},
		" (not suspended: it has secrets)": {{Action: banger.ActionSuspend, Idle: 90, Blocked: "it has secrets"}},
		" (what next words in 59 s)":       {after("what next words", time.Minute-1)},
		" (starts again in 3 s, removed in 2 days)": {after(banger.ActionStart, 3*time.Second),
			after(banger.ActionRemove, 48*time.Hour)},
	} {
		if got := due(list, now); got != want {
			t.Errorf("it is %q, not %q", got, want)
		}
	}
}

// TestNoTruncation shows what --no-trunc leaves whole.
func TestNoTruncation(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	vm := banger.VM{Spec: banger.Spec{Image: long}, Main: &banger.Exec{Args: []string{long}}, State: banger.StateFailed,
		Reason: long}
	for whole, want := range map[bool]int{true: 3, false: 0} {
		row := (&listOptions{whole: whole}).row(vm)
		if got := strings.Count(strings.Join(row, "\n"), long); got != want {
			t.Errorf("with --no-trunc %t, %d of the cells are whole", whole, got)
		}
	}
}
