package supervisor_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/shim"
	"banger/internal/supervisor"
	"banger/internal/testing/processtest"
	"banger/internal/testing/vmmtest"
)

// TestVMsOutliveTheDaemon: the next daemon adopts them unchanged.
func TestVMsOutliveTheDaemon(t *testing.T) {
	h := newHost(t)
	first := h.daemon()
	box, job := h.run(first, h.spec("box")), h.run(first, h.command("job", forever))
	idle, err := first.Create(h.ctx(), h.spec("idle"), nil, false, banger.Discard)
	check(t, err)
	before := h.status(box.ID)
	first.Close()
	_, err = first.Stop(h.ctx(), "box", time.Second)
	wantCode(t, err, banger.CodeUnavailable)

	s := h.daemon()
	if now := h.status(box.ID); now.VMM != before.VMM || now.Shim != before.Shim {
		t.Errorf("the VM is %+v, and was %+v", now, before)
	}
	h.wantState(s, box.ID, banger.StateRunning, "")
	h.wantState(s, idle.ID, banger.StateCreated, "")
	if out, code := h.sh(s, "box", "echo still here"); out != "still here\n" || code != 0 {
		t.Errorf("a command in it prints %q and exits with %d", out, code)
	}
	_, err = s.Kill(h.ctx(), "job", int(syscall.SIGTERM))
	check(t, err)
	if vm, err := s.Wait(h.ctx(), job.ID); err != nil || vm.ExitCode == nil || *vm.ExitCode != 143 {
		t.Errorf("the main command ends with %v, %v", vm.ExitCode, err)
	}
	for _, ref := range []string{"box", "job", "idle"} {
		check(t, s.Remove(h.ctx(), ref, true))
	}
	h.wantNothing(s)
}

// TestACommandGoesOnWithItsClient when no daemon runs, because the shim has the client's socket.
func TestACommandGoesOnWithItsClient(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.spec("box"))
	ask := banger.Exec{Args: []string{"/bin/sh", "-c", `read -r one; read -r two; echo "$one, $two"; exit 3`}, Stdin: true}
	stream, err := s.Guests().Exec(h.ctx(), "box", ask)
	check(t, err)
	check(t, frame.Write(stream, frame.Stdin, []byte("before\n")))
	client, theirs := processtest.SocketPair(t)
	given, err := stream.(*shim.Stream).Give(theirs)
	if !given || err != nil {
		t.Fatalf("the stream is not given away: %v", err)
	}
	check(t, theirs.Close())
	s.Close()
	check(t, frame.Write(client, frame.Stdin, []byte("after\n")))
	if out, code := h.output(client); out != "before, after\n" || code != 3 {
		t.Errorf("the command prints %q and exits with %d", out, code)
	}
	check(t, h.daemon().Remove(h.ctx(), "box", true))
}

// TestAStreamThatIsNotGivenAway keeps working.
func TestAStreamThatIsNotGivenAway(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.spec("box"))
	_, theirs := processtest.SocketPair(t)
	pipe, _ := net.Pipe()
	for name, give := range map[string]func(*shim.Stream) (bool, error){
		"its client is no unix socket": func(stream *shim.Stream) (bool, error) { return stream.Give(pipe) },
		"it was read from": func(stream *shim.Stream) (bool, error) {
			_, err := stream.Read(nil)
			check(t, err)
			return stream.Give(theirs)
		},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := s.Guests().Exec(h.ctx(), "box", banger.Exec{Args: []string{"/bin/echo", "hello"}})
			check(t, err)
			if given, err := give(stream.(*shim.Stream)); given || err != nil {
				t.Errorf("it is given away: %v, %v", given, err)
			}
			if out, code := h.output(stream); out != "hello\n" || code != 0 {
				t.Errorf("the command prints %q and exits with %d", out, code)
			}
		})
	}
}

// TestWhatEndedWhileNoDaemonRan checks that the next daemon shows it with its reason.
func TestWhatEndedWhileNoDaemonRan(t *testing.T) {
	const meanwhile = ", while no daemon ran"
	for name, c := range map[string]struct {
		end    func(*host, banger.VM)
		reason string
		state  banger.State
	}{
		"the guest powered off": {func(h *host, vm banger.VM) {
			dial := func(ctx context.Context) (net.Conn, error) { return h.shim(vm.ID).Dial(ctx, guest.AgentPort) }
			check(h.t, guest.Client{Dial: dial}.Shutdown(h.ctx(), time.Second))
		}, "the guest powered off" + meanwhile, banger.StateStopped},
		"the VMM was killed": {func(h *host, vm banger.VM) {
			check(h.t, syscall.Kill(h.status(vm.ID).VMM.PID, syscall.SIGKILL))
		}, "the VMM was killed by signal 9" + meanwhile, banger.StateFailed},
		"the shim was killed": {func(h *host, vm banger.VM) {
			check(h.t, syscall.Kill(h.status(vm.ID).Shim.PID, syscall.SIGKILL))
		}, "its shim was killed", banger.StateFailed},
		"the host rebooted": {func(h *host, vm banger.VM) {
			check(h.t, syscall.Kill(h.status(vm.ID).Shim.PID, syscall.SIGKILL))
			check(h.t, os.RemoveAll(h.path("run")))
			h.opts.BootID = "another"
		}, "the host went down" + meanwhile, banger.StateFailed},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			first := h.daemon()
			vm := h.run(first, h.spec("box"))
			first.Close()
			c.end(h, vm)
			h.await("it ends", func() bool { return len(h.processes()) == 0 })
			s := h.daemon()
			h.wantState(s, "box", c.state, c.reason)
			_, err := s.Start(h.ctx(), "box", false, false, banger.Discard)
			check(t, err)
			h.wantState(s, "box", banger.StateRunning, "")
		})
	}
}

// TestAMainCommandThatEndedWhileNoDaemonRan ends its VM when the next daemon starts.
func TestAMainCommandThatEndedWhileNoDaemonRan(t *testing.T) {
	h := newHost(t)
	check(t, syscall.Mkfifo(h.path("gate"), 0o600))
	gate, err := os.OpenFile(h.path("gate"), os.O_RDWR, 0)
	check(t, err)
	defer gate.Close()
	first := h.daemon()
	vm := h.run(first, h.command("job", "read x < "+h.path("gate")+"; exit 6"))
	first.Close()
	gate.WriteString("go\n")
	h.await("the command ends", func() bool { return len(h.processes()) == 2 })
	s := h.daemon()
	if vm, err := s.Wait(h.ctx(), vm.ID); err != nil || vm.ExitCode == nil || *vm.ExitCode != 6 {
		t.Errorf("it ends with %v, %v", vm.ExitCode, err)
	}
	h.wantState(s, "job", banger.StateStopped, "exited with code 6")
}

// TestRestoreUndoesWhatWasHalfMade, or half removed, and nothing else.
func TestRestoreUndoesWhatWasHalfMade(t *testing.T) {
	other := newHost(t) // has a daemon of its own on the same machine
	neighbour := other.daemon()
	other.run(neighbour, other.spec("box"))

	h := newHost(t)
	first := h.daemon()
	leaving := h.run(first, h.spec("leaving"))
	first.Close()
	check(t, h.opts.Store.Undo(h.ctx(), leaving)) // a daemon died while it removed this VM, whose shim still runs
	half := banger.VM{ID: banger.NewID(), Name: "half"}
	_, err := h.opts.Store.Create(h.ctx(), half) // a daemon died while it created this VM
	check(t, err)
	for _, dir := range []string{"state/vms/" + half.ID, "run/vms/" + half.ID, "run/vms/" + banger.NewID()} {
		check(t, os.MkdirAll(h.path(dir), 0o700))
		check(t, os.WriteFile(filepath.Join(h.path(dir), "file"), []byte("text"), 0o600))
	}
	s := h.daemon()
	h.wantNothing(s)
	check(t, errOf(s.Create(h.ctx(), h.spec("half"), nil, false, banger.Discard))) // the names are free
	check(t, errOf(s.Create(h.ctx(), h.spec("leaving"), nil, false, banger.Discard)))

	foreign := h.path("state/vms/notes-of-a-person")
	check(t, os.Mkdir(foreign, 0o700))
	s.Close()
	h.daemon()
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("what bears no id of ours was removed: %v", err)
	}
	if out, _ := other.sh(neighbour, "box", "echo undisturbed"); out != "undisturbed\n" {
		t.Errorf("a VM of another daemon prints %q", out)
	}
}

// TestADaemonThatDiedInTheMiddle: the next daemon continues from the row.
func TestADaemonThatDiedInTheMiddle(t *testing.T) {
	for name, c := range map[string]struct {
		state  banger.State
		reason string
		want   string
	}{
		"of a start":  {banger.StateStarting, "", "the daemon died while it was starting"},
		"of a stop":   {banger.StateStopping, "stopped by the user", "stopped by the user"},
		"of a pause":  {banger.StatePaused, "", ""}, // a paused VM stays paused
		"of a moment": {banger.StateRunning, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			first := h.daemon()
			vm := h.run(first, h.spec("box"))
			first.Close()
			vm.State, vm.Reason = c.state, c.reason
			check(t, h.opts.Store.Update(h.ctx(), vm))
			s := h.daemon()
			if c.want == "" {
				h.wantState(s, "box", c.state, "")
				if len(h.processes()) != 2 {
					t.Errorf("the processes are %v", h.processes())
				}
				return
			}
			_, err := s.Wait(h.ctx(), "box")
			check(t, err)
			h.wantState(s, "box", banger.StateStopped, c.want)
			h.await("no process is left", func() bool { return len(h.processes()) == 0 })
		})
	}
}

// TestCloseCutsShort the present operation. Nothing may be lost or left behind.
func TestCloseCutsShort(t *testing.T) {
	t.Run("a start", func(t *testing.T) {
		h := newHost(t)
		s := h.daemon()
		check(t, errOf(s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)))
		h.fault(vmmtest.NeverAnswer)
		started := make(chan error)
		go func() { started <- errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)) }()
		h.await("the guest hangs", func() bool { return len(h.processes()) == 2 })
		s.Close()
		wantCode(t, <-started, banger.CodeCanceled)
		h.await("no process is left", func() bool { return len(h.processes()) == 0 })
		next := h.daemon()
		vm, err := next.Get("box")
		if check(t, err); !vm.State.AtRest() {
			t.Errorf("the VM is %s", vm.State)
		}
		check(t, errOf(next.Start(h.ctx(), "box", false, false, banger.Discard)))
	})
	t.Run("a stop", func(t *testing.T) {
		h := newHost(t)
		s := h.daemon()
		vmm := h.status(h.run(s, h.spec("box")).ID).VMM.PID
		check(t, syscall.Kill(vmm, syscall.SIGSTOP))
		stopped := make(chan error)
		go func() { stopped <- errOf(s.Stop(h.ctx(), "box", time.Minute)) }()
		h.await("it is stopping",
			func() bool { vm, err := s.Get("box"); return err == nil && vm.State == banger.StateStopping })
		s.Close()
		if err := <-stopped; err == nil {
			t.Error("the stop claims success")
		}
		next := h.daemon()
		check(t, syscall.Kill(vmm, syscall.SIGCONT))
		check(t, errOf(next.Wait(h.ctx(), "box")))
		h.wantState(next, "box", banger.StateStopped, "stopped by the user")
	})
}

// TestAutoRemove: such a VM is removed when it ends, with or without a daemon or a client.
func TestAutoRemove(t *testing.T) {
	processtest.Long(t)
	for name, end := range map[string]func(*host, *supervisor.Supervisor, banger.VM) *supervisor.Supervisor{
		"with its main command": func(h *host, s *supervisor.Supervisor, vm banger.VM) *supervisor.Supervisor {
			check(h.t, errOf(s.Kill(h.ctx(), vm.ID, int(syscall.SIGTERM))))
			return s
		},
		"when it is stopped": func(h *host, s *supervisor.Supervisor, vm banger.VM) *supervisor.Supervisor {
			check(h.t, errOf(s.Stop(h.ctx(), vm.ID, time.Second)))
			return s
		},
		"when it is killed": func(h *host, s *supervisor.Supervisor, vm banger.VM) *supervisor.Supervisor {
			check(h.t, errOf(s.Kill(h.ctx(), vm.ID, 9)))
			return s
		},
		"when its shim dies": func(h *host, s *supervisor.Supervisor, vm banger.VM) *supervisor.Supervisor {
			check(h.t, syscall.Kill(h.status(vm.ID).Shim.PID, syscall.SIGKILL))
			return s
		},
		"while no daemon runs": func(h *host, s *supervisor.Supervisor, vm banger.VM) *supervisor.Supervisor {
			s.Close()
			check(h.t, h.shim(vm.ID).Kill(h.ctx()))
			return h.daemon()
		},
		"after its daemon died": func(h *host, s *supervisor.Supervisor, vm banger.VM) *supervisor.Supervisor {
			s.Close()
			check(h.t, h.shim(vm.ID).Kill(h.ctx()))
			vm.State = banger.StateStopped // a daemon wrote this row and died before the removal
			check(h.t, h.opts.Store.Update(h.ctx(), vm))
			return h.daemon()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := h.daemon()
			spec := h.command("job", forever)
			spec.AutoRemove = true
			s = end(h, s, h.run(s, spec))
			h.await("it is removed", func() bool { _, err := s.Get("job"); return banger.CodeOf(err) == banger.CodeNotFound })
			h.wantNothing(s)
		})
	}
}
