package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// TestBranchesOfAStoppedVM: a snapshot, the way back to it, a fork, and the fork in its source's place. The VMM of
// these tests takes no overlays, so disks are copied.
func TestBranchesOfAStoppedVM(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("box", forever))
	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	disk := func(id string) string { return filepath.Join(h.path("state/vms"), id, "disk.ext4") }
	put := func(id, text string) {
		f, err := os.OpenFile(disk(id), os.O_WRONLY, 0)
		check(t, err)
		_, err = f.WriteAt([]byte(text), 0)
		check(t, err)
		check(t, f.Close())
	}
	want := func(id, text string) {
		t.Helper()
		data, err := os.ReadFile(disk(id))
		if err != nil || !strings.HasPrefix(string(data), text) {
			t.Errorf("the disk of %s begins with %.10q, not %q, %v", id, data, text, err)
		}
	}
	b := s.Snapshots()
	put(vm.ID, "one")
	one, err := b.Create(h.ctx(), "box", "one", false)
	check(t, err)
	if one.Memory || one.Parent != "" || one.VM != vm.ID {
		t.Errorf("the snapshot is %+v", one)
	}
	put(vm.ID, "two")
	check(t, errOf(b.Restore(h.ctx(), "box", "one", false, banger.Discard)))
	want(vm.ID, "one")
	h.wantState(s, "box", banger.StateStopped, "")
	list, err := b.List("box")
	check(t, err)
	if len(list) != 2 || !list[0].Automatic || list[0].Parent != one.ID {
		t.Errorf("there are %+v", list)
	}

	made, err := b.Fork(h.ctx(), banger.Fork{From: list[0].Name, Name: "fork"}, banger.Discard)
	check(t, err)
	want(made[0].ID, "two")
	h.wantState(s, "fork", banger.StateRunning, "")
	if made[0].ID == vm.ID || made[0].SSHHostKey == vm.SSHHostKey || made[0].ForkOf != vm.ID {
		t.Errorf("the fork is %+v", made[0])
	}
	kept, err := b.Keep(h.ctx(), "fork", false, banger.Discard)
	if err != nil || kept.ID != made[0].ID || kept.Name != "box" || kept.ForkOf != "" {
		t.Errorf("kept is %+v, %v", kept, err)
	}
	if _, err := s.Get(vm.ID); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("the source is there: %v", err)
	}
	check(t, s.Remove(h.ctx(), "box", true))
	list, err = b.List("")
	check(t, err)
	for _, sn := range list {
		check(t, errOf(b.Remove(sn.ID)))
	}
	if left, _ := os.ReadDir(h.path("state/layers")); len(left) > 0 {
		t.Errorf("the layers %v are left", left)
	}
}

// TestWhatCannotBranch says why, and leaves nothing.
func TestWhatCannotBranch(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.run(s, h.command("box", forever))
	h.run(s, h.command("other", forever))
	b := s.Snapshots()
	_, err := b.Create(h.ctx(), "box", "", false) // its VMM writes no VM down
	if banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("a snapshot of a VM that runs: %v", err)
	}
	h.wantState(s, "box", banger.StateRunning, "")
	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	check(t, errOf(b.Create(h.ctx(), "box", "one", false)))
	for name, try := range map[string]func() error{
		"a name that is taken":    func() error { return errOf(b.Create(h.ctx(), "box", "one", false)) },
		"another VM's snapshot":   func() error { return errOf(b.Restore(h.ctx(), "other", "one", false, banger.Discard)) },
		"a VM that is no fork":    func() error { return errOf(b.Keep(h.ctx(), "other", false, banger.Discard)) },
		"a fork with a VM's name": func() error { return errOf(b.Fork(h.ctx(), banger.Fork{From: "one", Name: "other"}, banger.Discard)) },
	} {
		if err := try(); banger.CodeOf(err) != banger.CodeConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, try := range map[string]func() error{
		"a bad name": func() error { return errOf(b.Create(h.ctx(), "box", "No", false)) },
		"no pattern": func() error {
			return errOf(b.Fork(h.ctx(), banger.Fork{From: "one", Name: "x", Number: 2}, banger.Discard))
		},
		"too many VMs": func() error { return errOf(b.Fork(h.ctx(), banger.Fork{From: "one", Number: 101}, banger.Discard)) },
	} {
		if err := try(); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, _ := b.List(""); len(list) != 1 {
		t.Errorf("the snapshots are %v", list)
	}
	if left, _ := os.ReadDir(h.path("state/layers")); len(left) != 1 {
		t.Errorf("the layers are %v", left)
	}
}
