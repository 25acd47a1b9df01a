package supervisor_test

import (
	"testing"

	"banger/internal/testing/processtest"

	"banger"
)

// refuse makes the database refuse changes of rows that match an SQL condition, until allow is called.
func (h *host) refuse(change, when string) (allow func()) {
	h.t.Helper()
	h.execSQL("CREATE TRIGGER refused BEFORE " + change + " ON vm WHEN " + when +
		" BEGIN SELECT RAISE(ABORT, 'refused'); END")
	return func() { h.execSQL("DROP TRIGGER refused") }
}

// TestAStateThatCannotBeStoredDoesNotComeAbout: the start is undone, and the VM can be started again.
func TestAStateThatCannotBeStoredDoesNotComeAbout(t *testing.T) {
	for _, state := range []banger.State{banger.StateStarting, banger.StateRunning} {
		t.Run(string(state), func(t *testing.T) {
			h := newHost(t)
			s := h.daemon()
			check(t, errOf(s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)))
			allow := h.refuse("UPDATE", `NEW.document ->> 'state' = '`+string(state)+`'`)
			if _, err := s.Start(h.ctx(), "box", false, false, banger.Discard); err == nil {
				t.Error("the start claims success")
			}
			vm, err := s.Get("box")
			check(t, err)
			if !vm.State.AtRest() || h.row(vm.ID).State != vm.State {
				t.Errorf("the VM is %s, and its row says %s", vm.State, h.row(vm.ID).State)
			}
			h.await("no process is left", func() bool { return len(h.processes()) == 0 })
			allow()
			check(t, errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)))
			h.wantState(s, "box", banger.StateRunning, "")
		})
	}
}

// TestAVMEndsThoughItCannotBeStored: stop and kill work with a full database, and the row is written when there is
// space.
func TestAVMEndsThoughItCannotBeStored(t *testing.T) {
	processtest.Long(t)
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.spec("box"))
	allow := h.refuse("UPDATE", "1")
	s.Stop(h.ctx(), "box", 0) // it may return an error about the row
	if got, err := s.Get("box"); err != nil || got.State != banger.StateStopped {
		t.Errorf("the VM is %s, %v", got.State, err)
	}
	allow()
	h.await("the row says so too", func() bool { return h.row(vm.ID).State == banger.StateStopped })
}

// TestARefusedCreateIsNotListed, although its row could not be removed. The next daemon removes the row.
func TestARefusedCreateIsNotListed(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	allow := h.refuse("DELETE", "1")
	spec := h.spec("box")
	spec.Kernel = "nosuch"
	if _, err := s.Create(h.ctx(), spec, nil, false, banger.Discard); err == nil {
		t.Error("it claims success")
	}
	if list := s.List(func(banger.VM) bool { return true }); len(list) != 0 {
		t.Errorf("there are %+v", list)
	}
	s.Close()
	allow()
	h.wantNothing(h.daemon())
}

// TestARefusedRenameIsNone: the VM keeps its name, now and after a restart.
func TestARefusedRenameIsNone(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm, err := s.Create(h.ctx(), h.spec("old"), nil, false, banger.Discard)
	check(t, err)
	allow := h.refuse("UPDATE", "NEW.name = 'new'")
	if _, err := s.Rename(h.ctx(), "old", "new"); err == nil {
		t.Error("it claims success")
	}
	allow()
	s.Close()
	s = h.daemon()
	if got, err := s.Get("old"); err != nil || got.ID != vm.ID {
		t.Errorf("it is %+v, %v", got, err)
	}
}
