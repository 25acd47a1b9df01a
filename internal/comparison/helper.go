package comparison

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/plan"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// helper is a VM that reads disks.
type helper struct {
	id    string
	agent guest.Client
	layer string      // that of the disk CompareAfter
	give  func()      // gives the layers back when the helper is removed
	late  *time.Timer // ends a helper that is kept
}

// start starts a helper with the disks, whose agent is ready. The caller removes it. Nothing is left after an error.
func (c *Comparer) start(ctx context.Context, s sides, emit banger.Emit) (h *helper, err error) {
	vm := banger.VM{ID: banger.NewID(), Name: "helper", ImageDigest: s.of.ImageDigest, Kernel: s.of.Kernel,
		Spec: banger.Spec{Image: s.of.Spec.Image, CPUs: 1, Memory: memory, Network: banger.NetworkNone,
			Init: banger.InitAgent}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove(vm.ID))
		}
	}()
	if err := c.dirs.Make(vm.ID); err != nil {
		return nil, err
	}
	p, err := c.plan(ctx, vm, s)
	if err != nil {
		return nil, err
	}
	group, _, err := c.plans.Groups.Join(vm.ID, vm.Spec)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	p.Identity.Group = group
	emit(banger.Event{Stage: "compare", Text: "a VM of its own reads the disks"})
	client := shim.Client{Dir: c.dirs.VM(vm.ID), Run: c.dirs.Sockets(vm.ID)}
	if err := client.Start(ctx, c.shimArgv, p.Shim, p.Identity); err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "cannot start a VM that reads the disks: %w", err).
			WithHint("see: banger doctor")
	}
	agent := guest.Client{Dial: func(ctx context.Context) (net.Conn, error) {
		return client.Dial(ctx, guest.AgentPort)
	}}
	boots, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	if _, err := agent.Configure(boots, guest.Config{}); err != nil {
		return nil, c.unread(ctx, vm.ID, err)
	}
	emit(banger.Event{Stage: "compare", Text: "the disks are read", Done: true})
	return &helper{id: vm.ID, agent: agent, layer: s.after}, nil
}

// unread returns the error for a helper that did not get ready.
func (c *Comparer) unread(ctx context.Context, id string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	said := shim.LastWords(c.dirs.VM(id), 0)
	if said != "" {
		said = "; the VM that reads them said: " + said
	}
	return banger.Errorf(banger.CodeGuest, "the disks cannot be read: %w%s", err, said)
}

// plan returns what a helper needs, whose disks it makes.
func (c *Comparer) plan(ctx context.Context, vm banger.VM, s sides) (plan.Plan, error) {
	overlays := false
	vm.Spec.VMM = banger.VMMAuto
	for _, v := range c.plans.VMMs.VMMs { // overlays cost nothing, and other disks are copies
		spec := vm.Spec
		spec.VMM = v.Name
		if _, err := c.plans.VMMs.Choose(ctx, spec); err == nil && v.Overlays {
			vm.Spec, overlays = spec, true
			break
		}
	}
	initramfs, _, err := c.plans.Initramfs(vm)
	if err != nil {
		return plan.Plan{}, err
	}
	p, err := c.plans.In(c.dirs).Make(ctx, vm, helperUID, initramfs)
	if err != nil {
		return p, err
	}
	var disks []vmm.Drive
	var names []string
	for _, d := range []struct{ serial, layer string }{{guest.CompareBefore, s.before}, {guest.CompareAfter, s.after}} {
		if d.layer == "" {
			continue
		}
		drive, err := c.branches.Layers.Scratch(ctx, d.layer, d.serial, c.path(vm.ID, d.serial), overlays)
		if err != nil {
			return p, err
		}
		disks, names = append(disks, drive), append(names, d.serial)
	}
	own := slices.IndexFunc(p.Shim.VM.Drives, func(d vmm.Drive) bool { return d.Serial == "disk" })
	p.Shim.VM.Drives = slices.Replace(p.Shim.VM.Drives, own, own+1, disks...)
	p.Shim.VM.Cmdline = fmt.Sprintf("%s=%s", guest.CompareArgument, strings.Join(names, ","))
	return p, nil
}

// remove ends a helper and removes its files.
func (c *Comparer) remove(id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	client := shim.Client{Dir: c.dirs.VM(id), Run: c.dirs.Sockets(id)}
	err := client.Kill(ctx)
	c.shims().AwaitEnd(id, endTime)
	if err != nil { // it is killed by now
		c.log.Warn("a VM that read disks did not end by itself", "err", err)
	}
	return errors.Join(c.dirs.Remove(id), c.plans.Groups.Remove(id))
}
