package supervisor

import (
	"context"
	"net"
	"time"

	"banger"
	"banger/internal/parking"
	"banger/internal/resolve"
)

// mainCommand is the main command of a VM: its start, its client and its end.
type mainCommand struct{ *machine }

// start starts the main command in the background, or gives an attached client time to start it, and watches for its
// end.
func (m mainCommand) start(ctx context.Context, attach bool) error {
	vm := m.Snapshot()
	if vm.Main == nil {
		return nil
	}
	if !attach {
		if err := m.agent().Start(ctx, *vm.Main); err != nil {
			m.warn("the VM was not killed", m.kill(ctx, "its main command could not be started: "+err.Error()))
			return err
		}
		m.setSeen(true)
	} else {
		time.AfterFunc(attachWindow, func() { m.abandonUnlessAttached() })
	}
	m.watch()
	return nil
}

func (m mainCommand) attach(ctx context.Context, e banger.Exec) (net.Conn, error) {
	vm := m.Snapshot()
	if vm.Main == nil {
		return nil, banger.Errorf(banger.CodeConflict, "VM %s has no main command", vm.Name)
	}
	m.mu.Lock()
	seen := m.mainSeen
	m.mainSeen = true
	m.mu.Unlock()
	if seen {
		return nil, banger.Errorf(banger.CodeConflict, "the main command of VM %s was started already", vm.Name)
	}
	main := *vm.Main
	main.Stdin, main.Rows, main.Cols = e.Stdin, e.Rows, e.Cols
	if e.TTY {
		main.Env = resolve.MergeEnv(e.Env, main.Env)
	}
	return reachable{m.s}.OfferingMain(m.ID()).Exec(ctx, main)
}

func (m mainCommand) setSeen(seen bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mainSeen = seen
}

// abandonUnlessAttached stops a VM whose client died before it started the main command.
func (m mainCommand) abandonUnlessAttached() {
	err := m.do(m.ctx, func(ctx context.Context) error {
		m.mu.Lock()
		seen := m.mainSeen
		m.mu.Unlock()
		if seen || m.Snapshot().State != banger.StateRunning {
			return nil
		}
		later(m).halt()
		return m.stop(ctx, m.grace(), "its client went away before the main command was started")
	})
	if !m.IsGone() {
		m.warn("a VM without its client was not stopped", err)
	}
}

// watch starts the goroutine that waits for the end of the main command, if the VM has one. Only the owner calls it,
// once per start.
func (m mainCommand) watch() {
	if m.Snapshot().Main == nil {
		return
	}
	ended, done := make(chan banger.Exit, 1), make(chan struct{})
	m.mainEnded, m.mainDone = ended, done
	m.s.wg.Go(func() {
		defer close(done)
		m.wait(ended)
	})
}

// waitAgain is the pause before the agent is asked again how the main command has ended.
const waitAgain = time.Second

// wait reports the end of the main command. It asks again when the connection breaks, until the VM has ended.
func (m mainCommand) wait(ended chan<- banger.Exit) {
	for {
		exit, err := m.agent().Wait(m.ctx)
		if err == nil {
			ended <- exit // the channel has room
			return
		}
		pause, cancel := context.WithTimeout(m.ctx, waitAgain)
		m.s.shim(m.ID()).Watch(pause) // returns at once when the VMM or the shim has ended
		over := pause.Err() == nil || m.ctx.Err() != nil
		cancel()
		if over {
			return
		}
	}
}

// takeExit returns how the main command ended, if the agent reported that before the VMM ended. A guest that shuts
// down ends its main command first.
func (m mainCommand) takeExit() (banger.Exit, bool) {
	if m.mainDone == nil {
		return banger.Exit{}, false
	}
	select {
	case <-m.mainDone: // closes soon, because the connection of wait has lost its other end
	case <-m.ctx.Done():
	}
	select {
	case exit := <-m.mainEnded:
		return exit, true
	default:
		return banger.Exit{}, false
	}
}

// onEnd stops the VM whose main command has ended. A VM that is then removed is not shut down, because nobody will see
// its disk again: its other commands are killed, as in a container.
func (m mainCommand) onEnd(exit banger.Exit) {
	if m.Snapshot().State.AtRest() {
		return
	}
	code := exit.Status()
	m.Update(func(vm *banger.VM) { vm.ExitCode = &code })
	reason := parking.ExitReason(exit)
	if m.Snapshot().Spec.AutoRemove && m.agent().Delivered(m.ctx) == nil {
		m.warn("the VM was not killed after its main command", m.kill(m.ctx, reason))
		return
	}
	m.warn("the VM was not stopped after its main command", m.stop(m.ctx, m.grace(), reason))
}
