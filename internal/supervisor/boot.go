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
	"banger/internal/shim"
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
	initramfs, name, err := b.m.s.plans.Initramfs(b.vm)
	if err != nil {
		return err
	}
	b.m.update(func(vm *banger.VM) { vm.Initramfs = name })
	if err := b.m.forgetMemory(); err != nil { // the disk will fit it no more
		return err
	}
	key, err := b.launch(ctx, initramfs, false)
	if err != nil {
		return err
	}
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

// launch starts the shim, and its VM from the snapshot in its directory or from the beginning. It returns the VM's host
// key, read before the directory is given to the VM's user.
func (b boot) launch(ctx context.Context, initramfs string, restore bool) (hostKey string, err error) {
	p, err := b.m.s.plans.Make(b.m.ctx, b.vm, b.m.uid(), initramfs)
	if err != nil {
		return "", err
	}
	if restore {
		p.Shim.VM.Restore = b.m.s.dirs.VM(b.vm.ID)
	}
	if err := b.m.s.dirs.Make(b.vm.ID); err != nil {
		return "", err
	}
	hostKey, public, err := b.m.s.hostKey(b.vm.ID)
	if err != nil {
		return "", err
	}
	b.m.update(func(vm *banger.VM) { vm.VMM, vm.SSHHostKey = p.VMM, public })
	if err := b.startShim(ctx, p.Shim, p.Identity); err != nil {
		return "", err
	}
	b.watch.lap("vmm")
	b.m.alive = true
	b.m.s.wg.Go(b.m.watch)
	return hostKey, nil
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
			"so that systemctl may fail; see: banger logs %s", b.vm.Name, limit, b.vm.Name)})
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

// guestConfig returns the agent's configuration of a VM that already has its address.
func (b boot) guestConfig(ctx context.Context, hostKey string) (guest.Config, error) {
	vm := b.m.snapshot()
	net, err := b.m.s.networks.Guest(ctx, vm)
	return b.m.s.plans.Guest(vm, net, hostKey), err
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
	return err.WithHint("see: banger logs %s", vm.Name)
}

// errLate means that the agent did not answer in time.
var errLate = errors.New("the agent did not answer in time")
