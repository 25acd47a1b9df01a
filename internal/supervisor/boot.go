package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/network/bridge"
	"banger/internal/resolve"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// boot is one start of a VM, until its guest is ready.
type boot struct {
	m     *machine
	vm    banger.VM // the VM before the start
	watch *stopwatch
	emit  banger.Emit
}

// run boots the VM. Emulated boots first wait for a free place. After a guest panic it boots once more, because
// emulators have rare bugs that a second boot does not meet. If the guest has booted but its init is late, late says
// so in a sentence.
func (b boot) run(ctx context.Context) (late string, err error) {
	if !b.m.s.opts.VMMs.KVM {
		select {
		case b.m.s.boots <- struct{}{}:
			defer func() { <-b.m.s.boots }()
		case <-ctx.Done():
			return "", ctx.Err()
		}
		b.watch.lap("queue")
	}
	text := "booting " + b.vm.Name
	if !b.m.s.opts.VMMs.KVM {
		text += " (emulated: slow, and no isolation boundary)"
	}
	b.emit(banger.Event{Stage: "boot", Text: text})
	console := shim.ConsoleEnd(b.m.s.dirs.VM(b.vm.ID))
	err = b.once(ctx)
	if errors.Is(err, errPanic) && ctx.Err() == nil {
		b.emit(banger.Event{Stage: "boot", Text: "the guest kernel panicked, booting once more"})
		console = shim.ConsoleEnd(b.m.s.dirs.VM(b.vm.ID))
		err = b.once(ctx)
	}
	if err == nil {
		late, err = b.awaitInit(ctx)
	}
	var failed *bootError
	if errors.As(err, &failed) {
		err = failed.explain(b.vm, shim.LastWords(b.m.s.dirs.VM(b.vm.ID), console))
	}
	return late, err
}

// once starts the shim and waits until the agent has configured the guest.
func (b boot) once(ctx context.Context) error {
	spec, id, err := b.shimSpec()
	if err != nil {
		return err
	}
	if err := b.m.s.dirs.Make(b.vm.ID); err != nil {
		return err
	}
	key, public, err := b.m.s.hostKey(b.vm.ID)
	if err != nil {
		return err
	}
	b.m.update(func(vm *banger.VM) { vm.SSHHostKey = public })
	if err := b.startShim(ctx, spec, id); err != nil {
		return err
	}
	b.watch.lap("vmm")
	b.m.alive = true
	b.m.s.wg.Go(b.m.watch)
	config, err := b.guestConfig(ctx, key)
	if err != nil {
		return err
	}
	err = b.unlessEnded(ctx, bootTimeout, func(ctx context.Context) error {
		_, err := b.m.agent().Configure(ctx, config)
		return err
	})
	if err != nil {
		return err
	}
	b.syncClock(ctx)
	b.watch.lap("boot")
	return nil
}

// awaitInit waits until the image's init runs, if the VM boots it, and until systemd accepts requests, if it is
// systemd. It does not wait for systemd's units. A late init is no failure, because the agent can run commands
// anyway.
func (b boot) awaitInit(ctx context.Context) (late string, err error) {
	if b.vm.Spec.Init != banger.InitImage {
		return "", nil
	}
	limit := cmp.Or(b.m.s.opts.InitTime, initTime)
	err = b.unlessEnded(ctx, limit, b.m.agent().Ready)
	b.watch.lap("init")
	if errors.Is(err, errLate) {
		late = fmt.Sprintf("its init did not answer within %s", limit)
		b.emit(banger.Event{Stage: "boot", Text: fmt.Sprintf("warning: the init of %s does not answer within %s, "+
			"so that systemctl may fail; see: banger logs --console %s", b.vm.Name, limit, b.vm.Name)})
		return late, nil
	}
	return "", err
}

// unlessEnded makes a request to the agent and waits for at most limit. The end of the VMM ends the wait.
func (b boot) unlessEnded(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- request(within) }() // ends with within at the latest; the channel has room
	var err error
	select {
	case st := <-b.m.ended:
		return b.endedEarly(st)
	case err = <-answered:
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case within.Err() != nil:
		return &bootError{fmt.Errorf("%w (%s)", errLate, limit)}
	}
	select { // the VMM's end explains more than a broken connection
	case st := <-b.m.ended:
		return b.endedEarly(st)
	case <-time.After(time.Second):
		return &bootError{err}
	}
}

// endedEarly returns the error of a boot during which the VMM has ended.
func (b boot) endedEarly(st shim.Status) error {
	b.m.alive = false
	if st.Exit.Panic {
		return &bootError{errPanic}
	}
	return &bootError{errors.New(st.Exit.Reason)}
}

// syncClock sets the guest's clock from the host's. Configure has already set the clock, but without the time that
// its request took. If syncClock fails, the clock stays as it is, and the shim tries again each minute.
func (b boot) syncClock(ctx context.Context) {
	b.m.warn("the guest's clock was not set again after the boot", b.m.s.shim(b.m.id()).SyncClock(ctx))
}

// startShim opens the VM's ports and hands them to a new shim.
func (b boot) startShim(ctx context.Context, spec shim.Spec, id shim.Identity) error {
	wanted := b.vm.Spec.Forwards
	if spec.Network == nil {
		wanted = nil // they wait until the VM has a network again
	}
	ports, err := b.m.s.networks.Listen(wanted)
	if err != nil {
		return err
	}
	defer ports.Close()
	files := ports.Files
	group, limits, err := b.m.s.groups().Join(b.vm.ID, b.vm.Spec)
	if err != nil {
		return err
	}
	defer group.Close()
	id.Group = group
	b.m.update(func(vm *banger.VM) { vm.Limits = limits })
	if banger.OnBridge(b.vm.Spec.Network) {
		assign := func(address string) { b.m.update(func(vm *banger.VM) { vm.Address = address }) }
		if spec.Network.Address, err = b.m.s.networks.Join(ctx, b.vm, assign); err != nil {
			return err
		}
		if spec.Network.Tap != "" { // the VMM's user owns the tap
			spec.Network.Tap = bridge.Port{ID: b.vm.ID}.Tap()
		} else {
			tap, err := b.m.s.networks.Bridge.OpenTap(b.vm.ID)
			if err != nil {
				return err
			}
			defer tap.Close()
			files = append([]*os.File{tap}, files...)
		}
	}
	address := ""
	if spec.Network != nil {
		spec.Network.Forwards, address = ports.Forwards, cmp.Or(spec.Network.Address, spec.Network.Loopback)
	}
	if err := b.m.s.shim(b.vm.ID).Start(ctx, b.m.s.opts.ShimArgv, spec, id, files...); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot start the VMM: %w", err).WithHint("see: banger doctor")
	}
	link{b.m}.set(address, ports.Forwards)
	return nil
}

// material returns the kernel and the initramfs for the start of the VM. Afterwards its image is complete.
func (b boot) material() (kernel, initrd string, err error) {
	k, err := b.m.s.opts.Kernels.Get(b.vm.Kernel)
	if err != nil {
		return "", "", err
	}
	initrd, name, err := b.m.s.library.Initramfs(k.Name, b.m.s.opts.Agent)
	if err != nil {
		return "", "", err
	}
	b.m.update(func(vm *banger.VM) { vm.Initramfs = name })
	return k.Name, initrd, b.m.s.opts.Images.Ready(b.m.ctx, b.vm.ImageDigest, banger.Discard)
}

// shimSpec converts a VM into what the shim and its driver need.
func (b boot) shimSpec() (shim.Spec, shim.Identity, error) {
	var none shim.Identity
	kernel, initrd, err := b.material()
	if err != nil {
		return shim.Spec{}, none, err
	}
	driver, err := b.m.s.opts.VMMs.Choose(b.m.ctx, b.vm.Spec)
	if err != nil {
		return shim.Spec{}, none, err
	}
	b.m.update(func(vm *banger.VM) { vm.VMM = driver.String() })
	id := none
	if b.m.s.opts.Root {
		uid := b.m.uid()
		id = shim.Identity{UID: uid, GID: uid}
		if b.m.s.opts.VMMs.KVM {
			id.Groups = []uint32{b.m.s.opts.KVMGroup}
		}
	}
	cmdline := ""
	if b.vm.Spec.Init == banger.InitImage {
		cmdline = guest.InitArgument
	}
	net := link{b.m}.wanted(b.vm)
	if net != nil && driver.OpensTaps {
		net.Tap = guestTap
	}
	options, jail := b.m.s.jail(b.m.ctx, driver, b.vm.ID, id)
	if err := b.m.s.opts.checkReach(driver, jail != nil); err != nil {
		return shim.Spec{}, none, err
	}
	config := vmm.Config{
		ID:        b.vm.ID,
		Dir:       b.m.s.dirs.Sockets(b.vm.ID),
		Accel:     b.m.s.opts.VMMs.Accel(),
		CPUModel:  b.vm.Spec.CPUModel,
		Nested:    b.vm.Spec.Nested != "",
		Program:   driver.Path,
		Version:   driver.Version,
		Options:   options,
		Reads:     driver.Reads,
		Sockets:   driver.Sockets,
		Kernel:    b.m.s.opts.Kernels.Vmlinux(kernel),
		Initrd:    initrd,
		Cmdline:   cmdline,
		CPUs:      b.vm.Spec.CPUs,
		MemoryMiB: int(b.vm.Spec.Memory >> 20),
		Channel:   agentChannel,
		Drives: []vmm.Drive{
			{Serial: "rootfs", Path: b.m.s.opts.Images.RootfsPath(b.vm.ImageDigest), ReadOnly: true},
			{Serial: "disk", Path: b.m.s.dirs.Disk(b.vm.ID)},
			{Serial: "modules", Path: b.m.s.opts.Kernels.ModulesDisk(kernel), ReadOnly: true},
		},
	}
	spec := shim.Spec{Driver: driver.Name, Network: net, Jail: jail, VM: config}
	return spec, id, b.m.s.opts.openToAll(config)
}

// guestConfig returns the agent's configuration of a VM that already has its address.
func (b boot) guestConfig(ctx context.Context, hostKey string) (c guest.Config, err error) {
	vm := b.m.snapshot()
	hostname := vm.Spec.Hostname
	if hostname == "" {
		hostname = vm.Name
	}
	img, err := b.m.s.opts.Images.Get(vm.ImageDigest)
	if err != nil {
		img = banger.Image{} // the VM has its root, and boots without what else the image says
	}
	c = resolve.Guest(vm.Spec, img)
	c.Hostname, c.SSHHostKey = hostname, hostKey
	c.Network, err = b.m.s.networks.Guest(ctx, vm)
	resolve.Names(&c, vm.Spec)
	return c, err
}

// bootError is a failure of a boot that the guest has caused.
type bootError struct{ cause error }

func (e *bootError) Error() string { return e.cause.Error() }
func (e *bootError) Unwrap() error { return e.cause }

// explain returns the error of a VM's boot. said is the end of its console output.
func (e *bootError) explain(vm banger.VM, said string) error {
	if said != "" {
		said = "; its console ends with: " + said
	}
	err := banger.Errorf(banger.CodeGuest, "VM %s did not boot: %w%s", vm.Name, e.cause, said)
	if vm.Spec.AutoRemove { // the VM is removed, with its console log
		return err
	}
	return err.WithHint("see: banger logs --console %s", vm.Name)
}

// errLate means that the agent did not answer in time.
var errLate = errors.New("the agent did not answer in time")
