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
	"banger/internal/network"
	"banger/internal/shim"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// bootTimeout is ten times an idle machine's emulated boot.
const bootTimeout = 2 * time.Minute

// agentChannel is the name of the agent's port in the guest.
const agentChannel = "banger.agent"

// guestTap is the name of the tap of a VMM that opens it by name. It is the only one in
// its network namespace.
const guestTap = "tap0"

// errPanic marks a boot that ended in a guest kernel panic.
var errPanic = errors.New("the guest kernel panicked while booting")

// start boots the VM. With attach the main command is left to a client. On
// failure no process is left and the VM is failed with the reason.
func (m *machine) start(ctx context.Context, attach bool, emit banger.Emit) error {
	vm := m.snapshot()
	if !vm.State.AtRest() {
		return stateError("start", vm, "see: banger ps")
	}
	m.update(func(vm *banger.VM) { vm.ExitCode = nil })
	m.setMainSeen(false)
	m.mainDone = nil
	if err := m.setState(banger.StateStarting, ""); err != nil {
		return err
	}
	watch := newStopwatch()
	err := m.bootLimited(ctx, vm, watch, emit)
	if err == nil {
		m.update(func(vm *banger.VM) { vm.Timings = keepPreparation(vm.Timings, watch.timings) })
		err = m.setState(banger.StateRunning, "")
	}
	if err != nil {
		reason := err.Error()
		if ctx.Err() != nil { // asked before the end of an --rm VM, which ends ctx too
			reason = "the start was canceled"
			err = banger.Errorf(banger.CodeCanceled, "the start of VM %s was canceled", vm.Name)
		}
		m.kill(ctx, reason)
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
// guest panic: emulators have rare bugs that a second boot does not meet.
func (m *machine) bootLimited(ctx context.Context, vm banger.VM, watch *stopwatch, emit banger.Emit) error {
	if !m.s.opts.KVM {
		select {
		case m.s.boots <- struct{}{}:
			defer func() { <-m.s.boots }()
		case <-ctx.Done():
			return ctx.Err()
		}
		watch.lap("queue")
	}
	text := "booting " + vm.Name
	if !m.s.opts.KVM {
		text += " (emulated: slow, and no isolation boundary)"
	}
	emit(banger.Event{Stage: "boot", Text: text})
	err := m.boot(ctx, vm, watch)
	if errors.Is(err, errPanic) && ctx.Err() == nil {
		emit(banger.Event{Stage: "boot", Text: "the guest kernel panicked, booting once more"})
		err = m.boot(ctx, vm, watch)
	}
	if errors.Is(err, errPanic) {
		err = banger.Errorf(banger.CodeGuest, "VM %s did not boot: %w", vm.Name, err).WithHint("see: banger logs %s", vm.Name)
	}
	return err
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
	configured := make(chan error, 1)
	bootCtx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	go func() { // ends with bootCtx at the latest; the channel has room
		_, err := m.agent().Configure(bootCtx, config)
		configured <- err
	}()
	select {
	case err := <-configured:
		if err != nil {
			return m.bootError(ctx, err)
		}
		watch.lap("boot")
		return nil
	case st := <-m.ended:
		m.alive = false
		if st.Exit.Panic {
			return errPanic
		}
		return banger.Errorf(banger.CodeGuest, "VM %s ended while booting: %s", vm.Name, st.Exit.Reason).
			WithHint("see: banger logs %s", vm.Name)
	}
}

// startShim opens the VM's ports and hands them to a new shim.
func (m *machine) startShim(ctx context.Context, vm banger.VM, spec shim.Spec, id shim.Identity) error {
	ports, err := m.s.listen(vm.Spec.Forwards)
	if err != nil {
		return err
	}
	defer ports.close()
	files := ports.files
	if id.Group, err = m.joinGroup(vm.Spec); err != nil {
		return err
	}
	defer id.Group.Close()
	if banger.OnBridge(vm.Spec.Network) {
		if spec.Network.Address, err = m.joinBridge(ctx, vm); err != nil {
			return err
		}
		if spec.Network.Tap != "" { // whose owner is the VMM's user
			spec.Network.Tap = network.BridgePort{ID: vm.ID}.Tap()
		} else {
			tap, err := m.s.bridge.OpenTap(vm.ID)
			if err != nil {
				return err
			}
			defer tap.Close()
			files = append([]*os.File{tap}, files...)
		}
	}
	address := ""
	if spec.Network != nil {
		spec.Network.Forwards, address = ports.forwards, cmp.Or(spec.Network.Address, spec.Network.Loopback)
	}
	if err := m.s.shim(vm.ID).Start(ctx, m.s.opts.ShimArgv, spec, id, files...); err != nil {
		return banger.Errorf(banger.CodeUnavailable, "cannot start the VMM: %w", err).WithHint("see: banger doctor")
	}
	m.setNetwork(address, ports.forwards)
	return nil
}

func (m *machine) bootError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select { // the VMM's end explains more than a broken connection
	case st := <-m.ended:
		m.alive = false
		if st.Exit.Panic {
			return errPanic
		}
		err = errors.New(st.Exit.Reason)
	case <-time.After(time.Second):
	}
	return banger.Errorf(banger.CodeGuest, "VM %s did not boot: %w", m.vm.Name, err).WithHint("see: banger logs %s", m.vm.Name)
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
		uid := uint32(firstUID + m.slot)
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
		ID: vm.ID, Dir: m.s.runDir(vm.ID), Memory: filepath.Join(m.s.stateDir(vm.ID), "ram"),
		Accel: m.s.accel(), CPUModel: vm.Spec.CPUModel, Nested: vm.Spec.Nested != "",
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
	c = guest.Config{Hostname: hostname, TimeUnixNano: time.Now().UnixNano(), SSHHostKey: hostKey, CA: vm.Spec.CA,
		Nested: vm.Spec.Nested != ""}
	if img, err := m.s.opts.Images.Get(vm.ImageDigest); err == nil {
		c.StopSignal, _ = stopSignal(img) // checked at creation
	}
	c.Network, err = m.guestNetwork(ctx, vm)
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
