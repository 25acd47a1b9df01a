package supervisor_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/recovery"
	"banger/internal/supervisor"
)

// lose deletes rows, as the loss of a database does.
func (h *host) lose(ids ...string) {
	h.t.Helper()
	for _, id := range ids {
		check(h.t, h.opts.Store.Delete(h.ctx(), id))
	}
}

func (h *host) recover(old bool) []recovery.Found {
	h.t.Helper()
	found, err := recovery.Recover(h.ctx(), h.opts.Store, h.path("state"), h.opts.ShimArgv, old)
	check(h.t, err)
	return found
}

func wantFile(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// TestALostRowLosesNothing: the files of a VM at rest are set aside, a running VM keeps running, and both can be
// recovered with their names and specs.
func TestALostRowLosesNothing(t *testing.T) {
	h := newHost(t)
	first := h.daemon()
	rests, err := first.Create(h.ctx(), h.spec("rests"), nil, false, banger.Discard)
	check(t, err)
	spec := h.spec("runs")
	spec.Labels = map[string]string{"kept": "yes"}
	runs := h.run(first, spec)
	h.run(first, h.spec("known"))
	first.Close()
	h.lose(rests.ID, runs.ID)

	s := h.daemon()
	wantFile(t, h.path("state/lost/"+rests.ID+"/disk.ext4"))
	wantFile(t, h.path("state/vms/"+runs.ID+"/disk.ext4"))
	if st := h.status(runs.ID); st.Ended {
		t.Errorf("the VM without a row was ended: %+v", st)
	}
	problems := strings.Join(s.Problems(), "\n")
	for _, id := range []string{rests.ID, runs.ID} {
		if !strings.Contains(problems, id) {
			t.Errorf("the problems do not name %s:\n%s", id, problems)
		}
	}
	s.Close()

	found := h.recover(false)
	for _, r := range found {
		if r.Problem != nil {
			t.Errorf("VM %s is not recovered: %v", r.ID, r.Problem)
		}
	}
	s = h.daemon()
	if len(found) != 2 || len(s.Problems()) != 0 {
		t.Errorf("%d are found, and there are problems: %q", len(found), s.Problems())
	}
	h.wantState(s, "rests", banger.StateStopped, "its row was lost, and recovered")
	if vm := h.wantState(s, "runs", banger.StateRunning, ""); vm.Spec.Labels["kept"] != "yes" || vm.ID != runs.ID {
		t.Errorf("it came back as %+v", vm)
	}
	if out, _ := h.sh(s, "runs", "echo here"); out != "here\n" {
		t.Errorf("it prints %q", out)
	}
}

// TestAnEmptyDatabaseBesideVMsChangesNothing: the daemon does not start.
func TestAnEmptyDatabaseBesideVMsChangesNothing(t *testing.T) {
	h := newHost(t)
	first := h.daemon()
	vm := h.run(first, h.spec("box"))
	first.Close()
	h.lose(vm.ID)
	before := h.files()
	s, err := supervisor.New(*h.opts)
	check(t, err)
	err = s.Restore(h.ctx())
	s.Close()
	if banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), "banger recover") {
		t.Errorf("it starts with %v", err)
	}
	if after := h.files(); strings.Join(after, "\n") != strings.Join(before, "\n") || h.status(vm.ID).Ended {
		t.Errorf("there was\n%q\nand there is\n%q", before, after)
	}
	h.recover(true)
	h.wantState(h.daemon(), "box", banger.StateRunning, "")
}

// TestRecoverOfAnOlderCopy checks that a VM's record takes precedence over its row in the copy, and that a row
// without files is left out.
func TestRecoverOfAnOlderCopy(t *testing.T) {
	h := newHost(t)
	first := h.daemon()
	vm, err := first.Create(h.ctx(), h.spec("old"), nil, false, banger.Discard)
	check(t, err)
	gone, err := first.Create(h.ctx(), h.spec("gone"), nil, false, banger.Discard)
	check(t, err)
	older := []banger.VM{h.row(vm.ID), h.row(gone.ID)}
	check(t, errOf(first.Rename(h.ctx(), "old", "new")))
	check(t, first.Remove(h.ctx(), "gone", false))
	first.Close()
	for slot, vm := range older {
		check(t, h.opts.Store.Insert(h.ctx(), rowOf(vm, slot+1)))
	}
	h.recover(true)
	s := h.daemon()
	h.wantState(s, "new", banger.StateStopped, "its row was lost, and recovered")
	if list := s.List(func(banger.VM) bool { return true }); len(list) != 1 {
		t.Errorf("there are %+v", list)
	}
}

// TestWhatCannotBeRecoveredStays, and is reported with its reason.
func TestWhatCannotBeRecoveredStays(t *testing.T) {
	h := newHost(t)
	first := h.daemon()
	vm, err := first.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	h.run(first, h.spec("known"))
	first.Close()
	h.lose(vm.ID)
	check(t, os.Remove(h.path("state/vms/"+vm.ID+".json")))
	h.daemon().Close()
	found := h.recover(false)
	if len(found) != 1 || found[0].Problem == nil || found[0].Dir != h.path("state/lost/"+vm.ID) {
		t.Errorf("found: %+v", found)
	}
	wantFile(t, filepath.Join(h.path("state/lost/"+vm.ID), "disk.ext4"))
	h.daemon()
}

// TestARemovalThatCannotEndIsGoneOnWith at the next start.
func TestARemovalThatCannotEndIsGoneOnWith(t *testing.T) {
	h := newHost(t)
	first := h.daemon()
	vm, err := first.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	record := h.path("state/vms/" + vm.ID + ".json")
	check(t, errors.Join(os.Remove(record), os.MkdirAll(record+"/in-the-way", 0o700)))
	if err := first.Remove(h.ctx(), "box", false); err == nil {
		t.Error("it says that all is gone")
	}
	check(t, errOf(first.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard))) // the name is free
	first.Close()
	check(t, os.RemoveAll(record))
	s := h.daemon()
	if list, problems := s.List(func(banger.VM) bool { return true }), s.Problems(); len(list) != 1 || len(problems) != 0 {
		t.Errorf("there are %+v, and problems %q", list, problems)
	}
	if _, err := os.Lstat(h.path("state/vms/" + vm.ID)); err == nil {
		t.Error("its directory is still there")
	}
}

// TestARowThatCannotBeReadHoldsNobodyUp also checks that nothing is lost.
func TestARowThatCannotBeReadHoldsNobodyUp(t *testing.T) {
	h := newHost(t)
	first := h.daemon()
	broken, err := first.Create(h.ctx(), h.spec("broken"), nil, false, banger.Discard)
	check(t, err)
	h.run(first, h.spec("well"))
	first.Close()
	h.execSQL(`UPDATE vm SET document = 'not json' WHERE name = 'broken'`)
	s := h.daemon()
	h.wantState(s, "well", banger.StateRunning, "")
	if p := s.Problems(); len(p) != 1 || !strings.Contains(p[0], broken.ID) {
		t.Errorf("the problems are %q", p)
	}
	wantFile(t, h.path("state/vms/"+broken.ID+"/disk.ext4"))
	s.Close()
	h.recover(false)
	h.wantState(h.daemon(), "broken", banger.StateStopped, "its row was lost, and recovered")
}

// TestAVMThatIsBeingCreatedRefusesChanges, because its creation would overwrite them.
func TestAVMThatIsBeingCreatedRefusesChanges(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	creating, goOn := make(chan struct{}), make(chan struct{})
	created := make(chan error, 1)
	go func() {
		told := false
		created <- errOf(s.Create(h.ctx(), h.spec("box"), nil, true, func(e banger.Event) {
			if e.Stage == "boot" && !told {
				told = true
				close(creating)
				<-goOn
			}
		}))
	}()
	<-creating
	changes := map[string]func() error{
		"rename": func() error { return errOf(s.Rename(h.ctx(), "box", "other")) },
		"start":  func() error { return errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)) },
		"policy": func() error {
			return errOf(s.Connections().SetPolicy(h.ctx(), "box", banger.Policy{Default: banger.Deny}))
		},
	}
	results := map[string]chan error{}
	for name, f := range changes {
		result := make(chan error, 1)
		results[name] = result
		go func() { result <- f() }()
	}
	close(goOn)
	check(t, <-created)
	for name, result := range results {
		err := <-result
		after, _ := s.Get("box")
		if name == "rename" && err == nil {
			after, _ = s.Get("other")
		}
		if err != nil && banger.CodeOf(err) != banger.CodeConflict {
			t.Errorf("%s: %v", name, err)
		}
		if row := h.row(after.ID); row.Name != after.Name || row.State != after.State {
			t.Errorf("%s: the row says %s, %s, and the daemon %s, %s", name, row.Name, row.State, after.Name, after.State)
		}
	}
}
