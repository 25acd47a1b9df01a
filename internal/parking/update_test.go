package parking_test

import (
	"testing"
	"time"

	"banger"
	"banger/internal/parking"
)

// updatable returns a VM with 2 CPUs and 1 GiB that was started a minute ago.
func updatable(t *testing.T, state banger.State) banger.VM {
	t.Helper()
	vm := banger.VM{Name: "box", State: state, LivesSince: began, Spec: banger.Spec{Image: "x", CPUs: 2, Memory: 1 << 30}}
	if err := vm.Spec.Normalize(); err != nil {
		t.Fatal(err)
	}
	return vm
}

func sized(cpus int, cpu, memory int64) banger.Sizes {
	return banger.Sizes{CPUs: cpus, CPU: cpu, Memory: memory}
}

// TestSizesWaitForTheNextBoot of a VM that has others now.
func TestSizesWaitForTheNextBoot(t *testing.T) {
	two, three, memory, before := 2, 3, int64(2<<30), int64(1<<30)
	for name, c := range map[string]struct {
		state       banger.State
		updates     []banger.Update
		spec, after banger.Sizes // now, and at the next boot
	}{
		"at rest": {banger.StateStopped, []banger.Update{{CPUs: &three, CPU: 2500, Memory: &memory}},
			sized(3, 2500, 2<<30), sized(3, 2500, 2<<30)},
		"running": {banger.StateRunning, []banger.Update{{CPUs: &three}},
			sized(2, 0, 1<<30), sized(3, 0, 1<<30)},
		"suspended": {banger.StateSuspended, []banger.Update{{Memory: &memory}},
			sized(2, 0, 1<<30), sized(2, 0, 2<<30)},
		"one after the other": {banger.StatePaused, []banger.Update{{CPUs: &three}, {Memory: &memory}},
			sized(2, 0, 1<<30), sized(3, 0, 2<<30)},
		"there and back": {banger.StateRunning,
			[]banger.Update{{CPUs: &three, Memory: &memory}, {CPUs: &two, Memory: &before}},
			sized(2, 0, 1<<30), sized(2, 0, 1<<30)},
	} {
		t.Run(name, func(t *testing.T) {
			vm, err := updatable(t, c.state), error(nil)
			for _, u := range c.updates {
				if vm, err = parking.Updated(vm, u, began); err != nil {
					t.Fatal(err)
				}
			}
			next := parking.AtNextBoot(vm)
			now := banger.Sizes{CPUs: vm.Spec.CPUs, CPU: vm.Spec.Confine.CPU, Memory: vm.Spec.Memory}
			then := banger.Sizes{CPUs: next.CPUs, CPU: next.Confine.CPU, Memory: next.Memory}
			if now != c.spec || then != c.after || (vm.Next != nil) != (now != then) {
				t.Errorf("it has %+v, and at the next boot %+v", now, then)
			}
		})
	}
}

// TestWhatCannotBeUpdated leaves the VM as it was.
func TestWhatCannotBeUpdated(t *testing.T) {
	few, little := 0, int64(1)
	restart, late, soon := policy("always"), ttl("60s=rm"), ttl("61s=rm")
	park, removes := ttl("15m=suspend"), ttl("15m=rm")
	for name, c := range map[string]struct {
		update banger.Update
		change func(*banger.VM)
		ok     bool
	}{
		"nothing":           {banger.Update{}, nil, true},
		"no CPU":            {banger.Update{CPUs: &few}, nil, false},
		"too little memory": {banger.Update{Memory: &little}, nil, false},
		"a restart":         {banger.Update{Restart: &restart}, nil, true},
		"a restart after --rm": {banger.Update{Restart: &restart}, func(vm *banger.VM) { vm.Spec.AutoRemove = true },
			false},
		"a time that is over":      {banger.Update{TTL: &late}, nil, false},
		"a time that is not over":  {banger.Update{TTL: &soon}, nil, true},
		"a removal when idle":      {banger.Update{Idle: &removes}, nil, false},
		"a suspension":             {banger.Update{Idle: &park}, nil, true},
		"a suspension of a nested": {banger.Update{Idle: &park}, func(vm *banger.VM) { vm.Spec.Nested = "on" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			vm := updatable(t, banger.StateRunning)
			if c.change != nil {
				c.change(&vm)
			}
			_, err := parking.Updated(vm, c.update, began.Add(time.Minute))
			if (err == nil) != c.ok || err != nil && banger.CodeOf(err) != banger.CodeInvalid {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestATimeForAVMOfUnknownAge counts from the update.
func TestATimeForAVMOfUnknownAge(t *testing.T) {
	for state, want := range map[banger.State]time.Time{banger.StateRunning: began, banger.StateStopped: {}} {
		vm := updatable(t, state)
		vm.LivesSince = time.Time{}
		timer := ttl("60s=rm")
		if got, err := parking.Updated(vm, banger.Update{TTL: &timer}, began); err != nil || got.LivesSince != want {
			t.Errorf("%s: it lives since %s, %v", state, got.LivesSince, err)
		}
	}
}

// TestAPolicyThatEndsAlsoEndsAPendingStart.
func TestAPolicyThatEndsAlsoEndsAPendingStart(t *testing.T) {
	vm := updatable(t, banger.StateFailed)
	vm.Spec.Restart, vm.RestartAt = policy("always"), began.Add(time.Hour)
	no, more := policy("no"), policy("on-failure:3")
	if got, err := parking.Updated(vm, banger.Update{Restart: &more}, began); err != nil || got.RestartAt.IsZero() {
		t.Errorf("with another policy it is %+v, %v", got, err)
	}
	if got, err := parking.Updated(vm, banger.Update{Restart: &no}, began); err != nil || !got.RestartAt.IsZero() {
		t.Errorf("without a policy it is %+v, %v", got, err)
	}
}
