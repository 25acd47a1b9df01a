package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/network/bridge"
	"banger/internal/shim"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// bootTimeout is ten times an idle machine's emulated boot. initTime is how long an init of the image's may take from
// there.
const (
	bootTimeout = 2 * time.Minute
	initTime    = 30 * time.Second
)

// agentChannel is the name of the agent's port in the guest.
const agentChannel = "banger.agent"

// guestTap is the name of the tap of a VMM that opens it by name. It is the only one in
// its network namespace.
const guestTap = "tap0"

// errPanic marks a boot that ended in a guest kernel panic.
var errPanic = errors.New("the guest kernel panicked")

// start boots the VM. With attach the main command is left to a client. On
// failure no process is left and the VM is failed with the reason.
func (m *machine) start(ctx context.Context, attach bool, emit banger.Emit) error {
	vm := m.snapshot()
	if !vm.State.AtRest() {
		return stateError("start", vm, "see: banger ps")
	}
	return m.startNow(ctx, attach, emit)
}

// startNow is start for a VM that has no VMM.
func (m *machine) startNow(ctx context.Context, attach bool, emit banger.Emit) error {
	vm := m.snapshot()
	m.update(func(vm *banger.VM) { vm.ExitCode = nil })
	m.setMainSeen(false)
	m.mainDone = nil
	if err := m.setState(banger.StateStarting, ""); err != nil {
		return err
	}
	watch := newStopwatch()
	late, err := m.bootLimited(ctx, vm, watch, emit)
	if err == nil {
		m.update(func(vm *banger.VM) { vm.Timings = keepPreparation(vm.Timings, watch.timings) })
		err = m.setState(banger.StateRunning, late)
	}
	if err != nil {
		reason := err.Error()
		if ctx.Err() != nil { // asked before the end of an --rm VM, which ends ctx too
			reason = "the start was canceled"
			err = banger.Errorf(banger.CodeCanceled, "the start of VM %s was canceled", vm.Name)
		}
		if vm.Spec.AutoRemove {
			m.kill(ctx, reason)
		} else { // it is not stopped before it is failed
			m.endVMM(ctx, banger.StateStarting)
		}
		m.leaveGroup()
		m.s.cleanRun(m.id())
		if !m.isGone() {
			m.leaveNetwork()
			m.update(func(vm *banger.VM) { vm.ExitCode = new(int); *vm.ExitCode = failedCode })
			m.setState(banger.StateFailed, reason)
		}
		return err
	}
	emit(banger.Event{Stage: "boot", Text: vm.Name + " is running", Done: true})
	return m.startMain(ctx, attach)
}

// keepPreparation keeps the timings of creation in front of those of a start.
func keepPreparation(old, start []banger.Timing) []banger.Timing {
	var kept []banger.Timing
	for _, t := range old {
		switch t.Stage {
		case "image", "kernel", "disk":
			kept = append(kept, t)
		}
	}
	return append(kept, start...)
}

// startMain starts the main command in the background, or gives an attached
// client time to do it, and waits for its end.
func (m *machine) startMain(ctx context.Context, attach bool) error {
	vm := m.snapshot()
	if vm.Main == nil {
		return nil
	}
	if !attach {
		if err := m.agent().Start(ctx, *vm.Main); err != nil {
			m.kill(ctx, "its main command could not be started: "+err.Error())
			return err
		}
		m.setMainSeen(true)
	} else {
		time.AfterFunc(attachWindow, func() { m.abandonUnlessAttached() })
	}
	m.watchMain()
	return nil
}

func (m *machine) setMainSeen(seen bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mainSeen = seen
}

// abandonUnlessAttached stops a VM whose client died before it started the main
// command.
func (m *machine) abandonUnlessAttached() {
	m.do(m.ctx, func(ctx context.Context) error {
		m.mu.Lock()
		seen := m.mainSeen
		m.mu.Unlock()
		if seen || m.snapshot().State != banger.StateRunning {
			return nil
		}
		return m.stop(ctx, defaultGrace, "its client went away before the main command was started")
	})
}

// bootLimited boots with a place among the emulated boots, and once more after a
// guest panic: emulators have rare bugs that a second boot does not meet. What is late although the guest has booted
// is returned as a sentence.
func (m *machine) bootLimited(ctx context.Context, vm banger.VM, watch *stopwatch,
	emit banger.Emit) (late string, err error) {
	if !m.s.opts.KVM {
		select {
		case m.s.boots <- struct{}{}:
			defer func() { <-m.s.boots }()
		case <-ctx.Done():
			return "", ctx.Err()
		}
		watch.lap("queue")
	}
	text := "booting " + vm.Name
	if !m.s.opts.KVM {
		text += " (emulated: slow, and no isolation boundary)"
	}
	emit(banger.Event{Stage: "boot", Text: text})
	console := consoleEnd(m.s.stateDir(vm.ID))
	err = m.boot(ctx, vm, watch)
	if errors.Is(err, errPanic) && ctx.Err() == nil {
		emit(banger.Event{Stage: "boot", Text: "the guest kernel panicked, booting once more"})
		console = consoleEnd(m.s.stateDir(vm.ID))
		err = m.boot(ctx, vm, watch)
	}
	if err == nil {
		late, err = m.awaitInit(ctx, vm, watch, emit)
	}
	var b *bootError
	if errors.As(err, &b) {
		err = b.explain(vm, lastWords(m.s.stateDir(vm.ID), console))
	}
	return late, err
}

// bootError is the end of a boot that the guest is the reason of.
type bootError struct{ cause error }

func (e *bootError) Error() string { return e.cause.Error() }
func (e *bootError) Unwrap() error { return e.cause }

// explain returns the error of a VM's boot. said is what its console ends with.
func (e *bootError) explain(vm banger.VM, said string) error {
	if said != "" {
		said = "; its console ends with: " + said
	}
	err := banger.Errorf(banger.CodeGuest, "VM %s did not boot: %w%s", vm.Name, e.cause, said)
	if vm.Spec.AutoRemove { // then nothing of it stays
		return err
	}
	return err.WithHint("see: banger logs %s", vm.Name)
}

// boot starts the shim and waits until the agent has configured the guest.
func (m *machine) boot(ctx context.Context, vm banger.VM, watch *stopwatch) error {
	spec, id, err := m.shimSpec(vm)
	if err != nil {
		return err
	}
	if err := m.s.makeDirs(vm.ID); err != nil {
		return err
	}
	key, public, err := m.s.hostKey(vm.ID)
	if err != nil {
		return err
	}
	m.update(func(vm *banger.VM) { vm.SSHHostKey = public })
	if err := m.startShim(ctx, vm, spec, id); err != nil {
		return err
	}
	watch.lap("vmm")
	m.alive = true
	m.s.wg.Go(m.watch)
	config, err := m.guestConfig(ctx, key)
	if err != nil {
		return err
	}
	err = m.unlessEnded(ctx, bootTimeout, func(ctx context.Context) error {
		_, err := m.agent().Configure(ctx, config)
		return err
	})
	if err != nil {
		return err
	}
	m.syncClock(ctx)
	watch.lap("boot")
	return nil
}

// awaitInit waits until the image's init runs, if that is what boots, and until it obeys, if it is systemd; it does
// not wait for systemd's units. One that is late is no failure: the agent runs commands all the same.
func (m *machine) awaitInit(ctx context.Context, vm banger.VM, watch *stopwatch,
	emit banger.Emit) (late string, err error) {
	if vm.Spec.Init != banger.InitImage {
		return "", nil
	}
	limit := cmp.Or(m.s.opts.InitTime, initTime)
	err = m.unlessEnded(ctx, limit, m.agent().Ready)
	watch.lap("init")
	if errors.Is(err, errLate) {
		late = fmt.Sprintf("its init did not answer within %s", limit)
		emit(banger.Event{Stage: "boot", Text: fmt.Sprintf("warning: the init of %s does not answer within %s, "+
			"so that systemctl may fail; see: banger logs %s", vm.Name, limit, vm.Name)})
		return late, nil
	}
	return "", err
}

// errLate marks an answer of the agent that did not come in time.
var errLate = errors.New("the agent did not answer in time")

// unlessEnded makes a request of the agent, for limit at most, which the end of the VMM ends.
func (m *machine) unlessEnded(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- request(within) }() // ends with within at the latest; the channel has room
	var err error
	select {
	case st := <-m.ended:
		return m.endedEarly(st)
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
	case st := <-m.ended:
		return m.endedEarly(st)
	case <-time.After(time.Second):
		return &bootError{err}
	}
}

// endedEarly is the error of a boot during which the VMM has ended.
func (m *machine) endedEarly(st shim.Status) error {
	m.alive = false
	if st.Exit.Panic {
		return &bootError{errPanic}
	}
	return &bootError{errors.New(st.Exit.Reason)}
}

// syncClock sets the guest's clock by the host's, to what Configure cannot know: how long it took until it was read.
// Where that fails, the clock is as Configure has set it, and the shim tries again each minute.
func (m *machine) syncClock(ctx context.Context) { m.s.shim(m.id()).SyncClock(ctx) }

// startShim opens the VM's ports and hands them to a new shim.
func (m *machine) startShim(ctx context.Context, vm banger.VM, spec shim.Spec, id shim.Identity) error {
	ports, err := m.s.networks.Listen(vm.Spec.Forwards)
	if err != nil {
		return err
	}
	defer ports.Close()
	files := ports.Files
	if id.Group, err = m.joinGroup(vm.Spec); err != nil {
		return err
	}
	defer id.Group.Close()
	if banger.OnBridge(vm.Spec.Network) {
		if spec.Network.Address, err = m.s.networks.Join(ctx, vm, func(a string) { m.update(func(vm *banger.VM) { vm.Address = a }) }); err != nil {
			return err
		}
		if spec.Network.Tap != "" { // whose owner is the VMM's user
			spec.Network.Tap = bridge.Port{ID: vm.ID}.Tap()
		} else {
			tap, err := m.s.networks.Bridge.OpenTap(vm.ID)
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
	if err := m.s.shim(vm.ID).Start(ctx, m.s.opts.ShimArgv, spec, id, files...); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot start the VMM: %w", err).WithHint("see: banger doctor")
	}
	m.setNetwork(address, ports.Forwards)
	return nil
}

// shimSpec converts a VM into what the shim and its driver need.
func (m *machine) shimSpec(vm banger.VM) (shim.Spec, shim.Identity, error) {
	var none shim.Identity
	kern, err := m.s.opts.Kernels.Get(vm.Kernel)
	if err != nil {
		return shim.Spec{}, none, err
	}
	initrd, err := m.s.opts.Kernels.Initrd(kern.Name, m.s.opts.Agent)
	if err != nil {
		return shim.Spec{}, none, err
	}
	if _, err := m.s.opts.Images.Get(vm.ImageDigest); err != nil {
		return shim.Spec{}, none, err
	}
	if err := m.s.opts.Images.Ready(m.ctx, vm.ImageDigest, banger.Discard); err != nil {
		return shim.Spec{}, none, err
	}
	driver, err := m.s.chooseVMM(m.ctx, vm.Spec)
	if err != nil {
		return shim.Spec{}, none, err
	}
	m.update(func(vm *banger.VM) { vm.VMM = driver.String() })
	id := none
	if m.s.opts.Root {
		uid := m.uid()
		id = shim.Identity{UID: uid, GID: uid}
		if m.s.opts.KVM {
			id.Groups = []uint32{m.s.opts.KVMGroup}
		}
	}
	cmdline := ""
	if vm.Spec.Init == banger.InitImage {
		cmdline = guest.InitArgument
	}
	net := m.shimNetwork(vm)
	if net != nil && driver.OpensTaps {
		net.Tap = guestTap
	}
	options, jail := m.s.jail(m.ctx, driver, vm.ID, id)
	if err := m.s.checkReach(driver, jail != nil); err != nil {
		return shim.Spec{}, none, err
	}
	spec := shim.Spec{Driver: driver.Name, Network: net, Jail: jail, VM: vmm.Config{
		ID: vm.ID, Dir: m.s.runDir(vm.ID), Accel: m.s.accel(), CPUModel: vm.Spec.CPUModel, Nested: vm.Spec.Nested != "",
		Program: driver.path, Version: driver.version, Options: options, Reads: driver.Reads, Sockets: driver.Sockets, Kernel: m.s.opts.Kernels.Vmlinux(kern.Name), Initrd: initrd, Cmdline: cmdline,
		CPUs: vm.Spec.CPUs, MemoryMiB: int(vm.Spec.Memory >> 20), Channel: agentChannel,
		Drives: []vmm.Drive{
			{Serial: "rootfs", Path: m.s.opts.Images.RootfsPath(vm.ImageDigest), ReadOnly: true},
			{Serial: "disk", Path: m.s.diskPath(vm.ID)},
			{Serial: "modules", Path: m.s.opts.Kernels.ModulesDisk(kern.Name), ReadOnly: true},
		},
	}}
	return spec, id, m.s.openToAll(spec.VM)
}

func (m *machine) guestConfig(ctx context.Context, hostKey string) (c guest.Config, err error) {
	vm := m.snapshot()
	hostname := vm.Spec.Hostname
	if hostname == "" {
		hostname = vm.Name
	}
	c = guest.Config{Hostname: hostname, SSHHostKey: hostKey, CA: vm.Spec.CA,
		Nested: vm.Spec.Nested != ""}
	if img, err := m.s.opts.Images.Get(vm.ImageDigest); err == nil {
		c.StopSignal, _ = stopSignal(img) // checked at creation
	}
	c.Network, err = m.s.networks.Guest(ctx, vm)
	return c, err
}

// watch reports the end of the VMM to the owner, once per start.
func (m *machine) watch() {
	st, err := m.s.shim(m.id()).Watch(m.ctx)
	if m.ctx.Err() != nil {
		return
	}
	if err != nil {
		st = m.s.lastExit(m.id(), err)
	}
	select {
	case m.ended <- st:
	case <-m.ctx.Done():
	}
}

// watchMain starts the goroutine that waits for the main command's end. Only the
// owner calls it, once per start.
func (m *machine) watchMain() {
	ended, done := make(chan banger.Exit, 1), make(chan struct{})
	m.mainEnded, m.mainDone = ended, done
	m.s.wg.Go(func() {
		defer close(done)
		m.waitMain(ended)
	})
}

// waitMain reports the end of the main command. It asks again when the connection
// breaks, until the VM has ended.
func (m *machine) waitMain(ended chan<- banger.Exit) {
	for {
		exit, err := m.agent().Wait(m.ctx)
		if err == nil {
			ended <- exit // has room
			return
		}
		if st, err := m.s.shim(m.id()).Status(m.ctx); err != nil || st.Ended {
			return
		}
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(time.Second): // back-off
		}
	}
}

// lastExit tells how a VMM ended whose shim does not answer.
func (s *Supervisor) lastExit(id string, cause error) shim.Status {
	exit, err := s.shim(id).LastExit()
	if err != nil && s.rebooted {
		exit = vmm.Exit{Signal: int(syscall.SIGKILL), Reason: "the host went down"}
	} else if err != nil {
		exit = vmm.Exit{Signal: int(syscall.SIGKILL), Reason: fmt.Sprintf("its shim was killed (%v)", cause)}
	}
	return shim.Status{Ended: true, Exit: exit}
}

// makeDirs makes the directories of a VM that is to be started, or takes them back from its own
// user. Nothing is left in them of what a VMM that was taken over may have made there.
func (s *Supervisor) makeDirs(id string) error {
	s.cleanRun(id)
	for _, dir := range []string{s.stateDir(id), s.runDir(id)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := untrusted.Reclaim(dir, filepath.Base(s.diskPath(id)), hostKeyFile); err != nil {
			return banger.Errorf(banger.CodeConflict, "the files of the VM cannot be used: %w", err)
		}
	}
	return nil
}

// cleanRun removes what only a running VM has.
func (s *Supervisor) cleanRun(id string) {
	s.removeJail(id)
	untrusted.RemoveAll(s.runDir(id))
	os.Remove(filepath.Join(s.stateDir(id), "ram"))
}
