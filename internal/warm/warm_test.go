package warm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/plan"
	"banger/internal/shim"
	"banger/internal/vmm"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// box is a VM and the plan of its start, whose files are in a new directory.
func box(t *testing.T) (plan.Plan, banger.VM) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name, "file")
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, []byte(name), 0o600))
		return path
	}
	p := plan.Plan{Templates: true, Options: map[string]string{}}
	p.Shim = shim.Spec{Driver: "driver", VM: vmm.Config{ID: banger.NewID(), Accel: vmm.AccelTCG, Version: "1.0",
		Program: file("program"), Kernel: file("kernel"), Initrd: file("initrd"), CPUs: 1, MemoryMiB: 512, Channel: "agent",
		Drives: []vmm.Drive{{Serial: "rootfs", Path: file("rootfs"), ReadOnly: true}, {Serial: "disk", Path: file("disk")}}},
		Network: &shim.Network{MAC: "02:00:00:00:00:01"}}
	return p, banger.VM{Name: "box", Spec: banger.Spec{Network: banger.NetworkUser}}
}

// TestWhatMakesAShape: whatever a guest can see does, and what is the VM's own does not.
func TestWhatMakesAShape(t *testing.T) {
	rewrite := func(path, text string) { check(t, os.WriteFile(path, []byte(text), 0o600)) }
	for name, c := range map[string]struct {
		change func(p *plan.Plan, vm *banger.VM, fresh *bool)
		same   bool
	}{
		"its id":      {func(p *plan.Plan, vm *banger.VM, _ *bool) { p.Shim.VM.ID = banger.NewID() }, true},
		"its name":    {func(p *plan.Plan, vm *banger.VM, _ *bool) { vm.Name = "other" }, true},
		"its command": {func(p *plan.Plan, vm *banger.VM, _ *bool) { vm.Spec.Cmd = []string{"x"} }, true},
		"its MAC":     {func(p *plan.Plan, vm *banger.VM, _ *bool) { p.Shim.Network.MAC = "02:00:00:00:00:02" }, true},
		"its sockets": {func(p *plan.Plan, vm *banger.VM, _ *bool) { p.Shim.VM.Dir = "/other" }, true},
		"its user and group": {func(p *plan.Plan, vm *banger.VM, _ *bool) {
			p.Shim.VM.Options = map[string]string{"uid": "7"}
		}, true},
		"the content of its disk": {func(p *plan.Plan, vm *banger.VM, _ *bool) {
			rewrite(p.Shim.VM.Drives[1].Path, "DISK")
		}, true},

		"the size of its disk": {func(p *plan.Plan, vm *banger.VM, _ *bool) {
			rewrite(p.Shim.VM.Drives[1].Path, "a larger disk")
		}, false},
		"whether it has started": {func(p *plan.Plan, vm *banger.VM, fresh *bool) { *fresh = !*fresh }, false},
		"a root that is read-only": {func(_ *plan.Plan, vm *banger.VM, _ *bool) {
			vm.Spec.ReadOnly = true
		}, false},
		"a booted init": {func(_ *plan.Plan, vm *banger.VM, _ *bool) {
			vm.Spec.Warm = banger.WarmBooted
		}, false},
		"the image":               {func(p *plan.Plan, _ *banger.VM, _ *bool) { rewrite(p.Shim.VM.Drives[0].Path, "other") }, false},
		"the kernel":              {func(p *plan.Plan, _ *banger.VM, _ *bool) { rewrite(p.Shim.VM.Kernel, "another") }, false},
		"the initramfs":           {func(p *plan.Plan, _ *banger.VM, _ *bool) { rewrite(p.Shim.VM.Initrd, "another") }, false},
		"the VMM's program":       {func(p *plan.Plan, _ *banger.VM, _ *bool) { rewrite(p.Shim.VM.Program, "another") }, false},
		"the VMM":                 {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.Driver = "other" }, false},
		"its version":             {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.VM.Version = "1.1" }, false},
		"the accelerator":         {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.VM.Accel = vmm.AccelKVM }, false},
		"the CPU model":           {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.VM.CPUModel = "EPYC" }, false},
		"the number of CPUs":      {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.VM.CPUs = 2 }, false},
		"the memory":              {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.VM.MemoryMiB = 513 }, false},
		"the kernel's arguments":  {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.VM.Cmdline = "x" }, false},
		"the driver's options":    {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Options["pci"] = "on" }, false},
		"a jail":                  {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.Jail = &shim.Jail{} }, false},
		"how its NIC is attached": {func(p *plan.Plan, _ *banger.VM, _ *bool) { p.Shim.Network.Tap = "tap0" }, false},
		"no network": {func(p *plan.Plan, vm *banger.VM, _ *bool) {
			p.Shim.Network, vm.Spec.Network = nil, banger.NetworkNone
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, vm := box(t)
			fresh := true
			before, err := shapeOf(p, vm, fresh)
			check(t, err)
			c.change(&p, &vm, &fresh)
			after, err := shapeOf(p, vm, fresh)
			check(t, err)
			if (before.key == after.key) != c.same {
				t.Errorf("the shape is the same: %v", before.key == after.key)
			}
		})
	}
}

// TestWhatAlwaysBoots has no shape.
func TestWhatAlwaysBoots(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *plan.Plan, vm *banger.VM)
		why    error
	}{
		"it runs VMs":           {func(p *plan.Plan, _ *banger.VM) { p.Shim.VM.Nested = true }, errNested},
		"it is on a bridge":     {func(_ *plan.Plan, vm *banger.VM) { vm.Spec.Network = "lan" }, errBridge},
		"its VMM has none":      {func(p *plan.Plan, _ *banger.VM) { p.Templates = false }, errVMM},
		"its kernel is missing": {func(p *plan.Plan, _ *banger.VM) { os.Remove(p.Shim.VM.Kernel) }, os.ErrNotExist},
	} {
		p, vm := box(t)
		c.change(&p, &vm)
		if _, err := shapeOf(p, vm, true); !errors.Is(err, c.why) {
			t.Errorf("where %s the error is %v", name, err)
		}
	}
}

// TestAStartEndsTheMaking of a template, and while a VM starts none is begun.
func TestAStartEndsTheMaking(t *testing.T) {
	w, ended := &Warm{}, false
	w.stop = func() { ended = true }
	done := w.Starting()
	if !ended {
		t.Error("the making goes on")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	w.o.Idle = func(context.Context) error { return nil }
	if w.awaitQuiet(ctx) {
		t.Error("while a VM starts it is quiet")
	}
	done()
	w.quiet = time.Now().Add(-settle)
	if !w.awaitQuiet(t.Context()) {
		t.Error("it is not quiet after the last start")
	}
}

// TestWhatIdleMeans: half of all CPU time was spent on nothing.
func TestWhatIdleMeans(t *testing.T) {
	for name, c := range map[string]struct {
		before, now cpu
		idle        bool
	}{
		"nothing runs": {cpu{100, 200}, cpu{200, 300}, true},
		"half of it":   {cpu{100, 200}, cpu{150, 300}, true},
		"more of it":   {cpu{100, 200}, cpu{149, 300}, false},
		"all of it":    {cpu{100, 200}, cpu{100, 300}, false},
	} {
		if isIdle(c.before, c.now) != c.idle {
			t.Errorf("%s: it is said to be idle: %v", name, !c.idle)
		}
	}
	if c, err := readCPU(); err != nil || c.all == 0 || c.idle > c.all {
		t.Errorf("this host has %+v, %v", c, err)
	}
}
