package parking_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/parking"
)

// began is the start of every VM here.
var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// policy makes a restart policy of NAME[:N].
func policy(text string) (p banger.RestartPolicy) {
	p.Name, text, _ = strings.Cut(text, ":")
	p.Max, _ = strconv.Atoi(text)
	return p
}

// ttl makes a time to live of TIME=ACTION, or none.
func ttl(text string) banger.Timer {
	after, action, _ := strings.Cut(text, "=")
	d, _ := time.ParseDuration(after)
	return banger.Timer{Seconds: int64(d / time.Second), Action: action}
}

func TestThePauseBeforeARestartDoubles(t *testing.T) {
	var pause time.Duration
	for i, want := range []string{"100ms", "200ms", "400ms", "800ms", "1.6s", "3.2s", "6.4s", "12.8s", "25.6s", "51.2s",
		"1m0s", "1m0s"} {
		if pause = parking.Backoff(pause, time.Second); pause.String() != want {
			t.Errorf("pause %d is %s, not %s", i, pause, want)
		}
	}
	if got := parking.Backoff(pause, 10*time.Second); got != 100*time.Millisecond {
		t.Errorf("after a VM that ran for long the pause is %s", got)
	}
}

func TestWhichVMStartsAgain(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		failed bool
		change func(*banger.VM)
		want   bool
	}{
		"without a policy":                {"no", true, nil, false},
		"always, failed":                  {"always", true, nil, true},
		"always, ended well":              {"always", false, nil, true},
		"always, stopped by a user":       {"always", false, func(vm *banger.VM) { vm.Halted = true }, false},
		"on failure, failed":              {"on-failure", true, nil, true},
		"on failure, ended well":          {"on-failure", false, nil, false},
		"on failure, for the 1000th time": {"on-failure", true, func(vm *banger.VM) { vm.Restarts = 1000 }, true},
		"on failure, one more":            {"on-failure:3", true, func(vm *banger.VM) { vm.Restarts = 2 }, true},
		"on failure, often enough":        {"on-failure:3", true, func(vm *banger.VM) { vm.Restarts = 3 }, false},
		"its time is over": {"always", true, func(vm *banger.VM) {
			vm.Spec.TTL = banger.Timer{Seconds: 60, Action: banger.ActionStop}
		}, false},
		"its time to be suspended is over": {"always", true, func(vm *banger.VM) {
			vm.Spec.TTL = banger.Timer{Seconds: 60, Action: banger.ActionSuspend}
		}, true},
		"its time is not over": {"always", true, func(vm *banger.VM) {
			vm.Spec.TTL = banger.Timer{Seconds: 61, Action: banger.ActionRemove}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			vm := banger.VM{LivesSince: began}
			vm.Spec.Restart = policy(c.policy)
			if c.change != nil {
				c.change(&vm)
			}
			if got := parking.Restarts(vm, c.failed, began.Add(time.Minute)); got != c.want {
				t.Errorf("it is %v", got)
			}
		})
	}
}

func TestWhichVMStartsWithTheDaemon(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		vm     banger.VM
		want   bool
	}{
		"always":                       {"always", banger.VM{State: banger.StateStopped}, true},
		"always, stopped by a user":    {"always", banger.VM{State: banger.StateStopped, Halted: true}, true},
		"always, failed":               {"always", banger.VM{State: banger.StateFailed}, true},
		"always, never started":        {"always", banger.VM{State: banger.StateCreated}, false},
		"always, suspended":            {"always", banger.VM{State: banger.StateSuspended}, false},
		"always, running":              {"always", banger.VM{State: banger.StateRunning}, false},
		"always, it will start anyway": {"always", banger.VM{State: banger.StateFailed, RestartAt: began}, false},
		"always, its time is over": {"always", banger.VM{State: banger.StateStopped, LivesSince: began,
			Spec: banger.Spec{TTL: ttl("1m=stop")}}, false},
		"on failure": {"on-failure", banger.VM{State: banger.StateFailed}, false},
		"no":         {"no", banger.VM{State: banger.StateFailed}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.vm.Spec.Restart.Name = c.policy
			if got := parking.RestartsWithDaemon(c.vm, began.Add(time.Hour)); got != c.want {
				t.Errorf("it is %v", got)
			}
		})
	}
}

func TestWhatIsDue(t *testing.T) {
	const running, suspended, stopped = banger.StateRunning, banger.StateSuspended, banger.StateStopped
	soon := began.Add(time.Second)
	for name, c := range map[string]struct {
		state  banger.State
		ttl    string
		change func(*banger.VM)
		want   string
	}{
		"nothing":                      {running, "none", nil, "[]"},
		"a stop":                       {running, "1m=stop", nil, "[stop after 1m0s]"},
		"a stop of a suspended VM":     {suspended, "1m=stop", nil, "[stop after 1m0s]"},
		"no stop of a stopped VM":      {stopped, "1m=stop", nil, "[]"},
		"a suspension":                 {running, "1m=suspend", nil, "[suspend after 1m0s]"},
		"no suspension of a suspended": {suspended, "1m=suspend", nil, "[]"},
		"no second suspension":         {running, "1m=suspend", func(vm *banger.VM) { vm.Expired = true }, "[]"},
		"a removal":                    {running, "1m=rm", nil, "[rm after 1m0s]"},
		"a removal of a suspended VM":  {suspended, "1m=rm", nil, "[rm after 1m0s]"},
		"a removal of a stopped VM":    {stopped, "1m=rm", nil, "[rm after 1m0s]"},
		"never started": {banger.StateCreated, "1m=rm", func(vm *banger.VM) { vm.LivesSince = time.Time{} },
			"[]"},
		"a start": {stopped, "1m=stop", func(vm *banger.VM) { vm.RestartAt = soon }, "[start after 1s]"},
		"a start, and a removal after": {stopped, "1m=rm", func(vm *banger.VM) { vm.RestartAt = soon },
			"[start after 1s rm after 1m0s]"},
		"after idleness": {running, "1m=stop", func(vm *banger.VM) { vm.Spec.Idle = ttl("15m=suspend") },
			"[stop after 1m0s suspend when idle for 900 s]"},
		"no idleness of a suspended VM": {suspended, "none", func(vm *banger.VM) { vm.Spec.Idle = ttl("15m=stop") }, "[]"},
		"no suspension of a VM with secrets": {running, "1m=suspend", func(vm *banger.VM) {
			vm.Spec.Idle, vm.Secrets = ttl("15m=suspend"), []string{"A"}
		}, "[no suspend after 1m0s no suspend when idle for 900 s]"},
		"a stop of one": {running, "1m=stop", func(vm *banger.VM) { vm.Secrets = []string{"A"} }, "[stop after 1m0s]"},
		"the removal is before the start": {stopped, "1s=rm", func(vm *banger.VM) { vm.RestartAt = soon.Add(1) },
			"[rm after 1s start after 1.000000001s]"},
	} {
		t.Run(name, func(t *testing.T) {
			vm := banger.VM{State: c.state, LivesSince: began}
			vm.Spec.TTL = ttl(c.ttl)
			if c.change != nil {
				c.change(&vm)
			}
			got := []string{}
			for _, due := range parking.Due(vm) {
				if due.Blocked != "" {
					due.Action = "no " + due.Action
				}
				if due.Idle > 0 {
					got = append(got, fmt.Sprintf("%s when idle for %d s", due.Action, due.Idle))
					continue
				}
				got = append(got, fmt.Sprintf("%s after %s", due.Action, due.At.Sub(began)))
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("due is %v, not %s", got, c.want)
			}
		})
	}
}

// TestAVMThatGoesOnAfterItsTime is not suspended for it again, but is still stopped.
func TestAVMThatGoesOnAfterItsTime(t *testing.T) {
	for text, want := range map[string]bool{"1m=suspend": true, "1m1s=suspend": false, "1m=stop": false, "none": false} {
		vm := banger.VM{LivesSince: began}
		vm.Spec.TTL = ttl(text)
		if got := parking.Expired(vm, began.Add(time.Minute)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestSecretsBlockASuspension, and what comes after it is not blocked.
func TestSecretsBlockASuspension(t *testing.T) {
	for text, want := range map[string]string{"suspend": "", "stop": "stop"} {
		vm := banger.VM{State: banger.StateRunning, LivesSince: began, Secrets: []string{"A"}}
		vm.Spec.TTL, vm.Spec.Idle = ttl("1m="+text), ttl("1m="+text)
		next, _, ok := parking.Next(vm, time.Time{}, began.Add(time.Hour))
		if idle := parking.WhenIdle(vm); idle != want || next.Action != want || ok != (want != "") {
			t.Errorf("%s: %q when idle, and next %+v, %v", text, idle, next, ok)
		}
	}
}

// TestIdlenessHasNoTime: the daemon waits for nothing.
func TestIdlenessHasNoTime(t *testing.T) {
	vm := banger.VM{State: banger.StateRunning, LivesSince: began}
	vm.Spec.Idle = ttl("1s=suspend")
	if next, _, ok := parking.Next(vm, time.Time{}, began); ok {
		t.Errorf("it waits for %+v", next)
	}
}

func TestHowLongADaemonWaits(t *testing.T) {
	for name, c := range map[string]struct {
		state banger.State
		now   time.Duration
		again time.Duration
		want  string
	}{
		"until it is due":           {banger.StateRunning, 59 * time.Minute, 0, "1m0s true"},
		"it looks at the clock":     {banger.StateRunning, 0, 0, "1m0s true"},
		"it is due":                 {banger.StateRunning, time.Hour, 0, "0s true"},
		"it is overdue":             {banger.StateRunning, 100 * time.Hour, 0, "0s true"},
		"after a failure":           {banger.StateRunning, time.Hour, time.Hour + time.Second, "1s true"},
		"it changes":                {banger.StateStopping, time.Hour, 0, "0s false"},
		"its process is not heard":  {banger.StateUnreachable, time.Hour, 0, "0s false"},
		"there is nothing to do":    {banger.StateStopped, time.Hour, 0, "0s false"},
		"suspended VMs are stopped": {banger.StateSuspended, time.Hour, 0, "0s true"},
	} {
		t.Run(name, func(t *testing.T) {
			vm := banger.VM{State: c.state, LivesSince: began}
			vm.Spec.TTL = banger.Timer{Seconds: 3600, Action: banger.ActionStop}
			_, wait, ok := parking.Next(vm, began.Add(c.again), began.Add(c.now))
			if got := fmt.Sprint(wait, ok); got != c.want {
				t.Errorf("it is %s, not %s", got, c.want)
			}
		})
	}
}

// TestAGuestMayRebootFiveTimesAMinute, and again when the first of these times is a minute ago.
func TestAGuestMayRebootFiveTimesAMinute(t *testing.T) {
	var reboots parking.Reboots
	for i, want := range []bool{true, true, true, true, true, false, true, true} {
		now := began.Add(time.Duration(i) * 10 * time.Second) // the seventh is a minute after the first
		if got := reboots.May(now); got != want {
			t.Errorf("reboot %d is allowed: %v", i+1, got)
		}
	}
}
