package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// TestASuspensionThatFails: the VMM of these tests writes no VM down, so the VM goes on, with its commands.
func TestASuspensionThatFails(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.command("box", forever))
	_, err := s.Suspend(h.ctx(), "box", false)
	if banger.CodeOf(err) != banger.CodeUnavailable || !strings.Contains(err.Error(),
		"VM box was not suspended, and goes on: its VMM cannot write a VM down") {
		t.Errorf("the error is %v", err)
	}
	h.wantState(s, "box", banger.StateRunning, "")
	if out, code := h.sh(s, "box", "echo still here"); out != "still here\n" || code != 0 {
		t.Errorf("a command says %q, %d", out, code)
	}
}

// TestPauseAndResume: what needs the agent of a paused VM says so. A stop of it is a clean one.
func TestPauseAndResume(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.command("box", forever))
	for range 2 {
		check(t, errOf(s.Pause(h.ctx(), "box")))
		h.wantState(s, "box", banger.StatePaused, "")
		if _, err := s.Pause(h.ctx(), "box"); banger.CodeOf(err) != banger.CodeConflict {
			t.Errorf("it is paused twice: %v", err)
		}
		check(t, errOf(s.Resume(h.ctx(), "box", banger.Discard)))
		h.wantState(s, "box", banger.StateRunning, "")
		check(t, errOf(s.Resume(h.ctx(), "box", banger.Discard))) // as start of a running VM
	}
	check(t, errOf(s.Pause(h.ctx(), "box")))
	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	h.wantState(s, "box", banger.StateStopped, "stopped by the user")
	if _, err := s.Resume(h.ctx(), "box", banger.Discard); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a stopped VM resumes: %v", err)
	}
}

// TestTheStateFollowsTheSnapshot: a daemon that finds a whole snapshot has a suspended VM, whatever the row says, and
// without one it has none.
func TestTheStateFollowsTheSnapshot(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("box", forever))
	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	s.Close()
	manifest := filepath.Join(h.path("state/vms"), vm.ID, "snapshot.json")
	check(t, os.WriteFile(manifest, []byte("{}"), 0o600))
	s = h.daemon()
	h.wantState(s, "box", banger.StateSuspended, "")
	if pruned, err := s.Prune(h.ctx()); len(pruned) > 0 || err != nil {
		t.Errorf("a suspended VM is pruned: %v, %v", pruned, err)
	}
	s.Close()
	check(t, os.Remove(manifest))
	s = h.daemon()
	h.wantState(s, "box", banger.StateStopped, "its memory is gone")
	check(t, s.Remove(h.ctx(), "box", false))
}
