package vmdir

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"banger"
)

// made returns directories in which each VM of ids has files, sockets, a jail and a record.
func made(t *testing.T, ids ...string) Dirs {
	t.Helper()
	root := t.TempDir()
	d := Dirs{State: filepath.Join(root, "state"), Run: filepath.Join(root, "run")}
	check(t, d.MakeAll())
	for i, id := range ids {
		check(t, d.Make(id))
		check(t, os.WriteFile(d.Disk(id, ""), []byte("disk"), 0o600))
		check(t, os.WriteFile(filepath.Join(d.Sockets(id), "socket"), nil, 0o600))
		check(t, os.MkdirAll(d.Secrets(id), 0o700))
		check(t, os.WriteFile(filepath.Join(d.Secrets(id), "TOKEN"), nil, 0o600))
		check(t, os.MkdirAll(d.Jails().Root("firecracker", id), 0o700))
		check(t, d.Recorder(id).Write(NewRecord(banger.VM{ID: id, Name: "name-" + id}, i+1)))
	}
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// left lists the files below dirs, without the directories themselves.
func left(t *testing.T, dirs ...string) (list []string) {
	t.Helper()
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				list = append(list, path)
			}
			return nil
		})
	}
	return list
}

const one, two = "00000000000a", "00000000000b"

// TestRemoveLeavesNothingOfAVM checks that Remove removes everything of one VM and nothing of another, and that a
// second Remove is no error.
func TestRemoveLeavesNothingOfAVM(t *testing.T) {
	d := made(t, one, two)
	check(t, d.Remove(one))
	check(t, d.Remove(one))
	want := []string{d.Disk(two, ""), filepath.Join(d.VMs(), two+".json"), filepath.Join(d.Secrets(two), "TOKEN"),
		filepath.Join(d.Sockets(two), "socket")}
	if got := left(t, d.State, d.Run); !slices.Equal(got, want) {
		t.Errorf("left are %q, not %q", got, want)
	}
	if ids := d.Jails().IDs(); !slices.Equal(ids, []string{two}) {
		t.Errorf("jails of %q are left", ids)
	}
}

// TestWhatIsSetAsideComesBack checks that a VM without a row is set aside with its record, and can be put back.
func TestWhatIsSetAsideComesBack(t *testing.T) {
	d := made(t, one, two)
	unknown, err := d.Unknown(map[string]bool{two: true})
	if err != nil || !slices.Equal(unknown, []string{one}) {
		t.Fatalf("unknown are %q, %v", unknown, err)
	}
	check(t, d.SetAside(one))
	if aside := d.Aside(); !slices.Equal(aside, []string{filepath.Join(d.Lost(), one)}) {
		t.Errorf("set aside are %q", aside)
	}
	if r, err := ReadRecord(d.Lost(), one); err != nil || r.VM.Name != "name-"+one || r.Slot != 1 {
		t.Errorf("its record is %+v, %v", r, err)
	}
	check(t, d.PutBack(one))
	if data, err := os.ReadFile(d.Disk(one, "")); err != nil || string(data) != "disk" {
		t.Errorf("its disk holds %q, %v", data, err)
	}
	check(t, d.SetAside(one))
	check(t, d.Make(one)) // another VM in its place must not be overwritten
	if err := d.PutBack(one); err == nil {
		t.Error("it is put in the place of another")
	}
	check(t, d.SetAside(one))
	if aside := d.Aside(); len(aside) != 2 {
		t.Errorf("set aside are %q", aside)
	}
}

// TestASweepKeepsWhatRuns checks that Sweep keeps everything of a VM in kept, and only the durable files of another
// VM.
func TestASweepKeepsWhatRuns(t *testing.T) {
	d := made(t, one, two)
	check(t, d.Sweep(map[string]bool{two: true}))
	for _, dir := range []string{d.Sockets(one), d.Secrets(one)} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s of a VM that does not run is left", dir)
		}
	}
	if _, err := os.Stat(d.Disk(one, "")); err != nil {
		t.Errorf("its disk is gone: %v", err)
	}
	_, err := os.Stat(d.Sockets(two))
	_, serr := os.Stat(d.Secrets(two))
	if err = errors.Join(err, serr); err != nil || !slices.Equal(d.Jails().IDs(), []string{two}) {
		t.Errorf("of a VM that runs something is gone: %v, jails %q", err, d.Jails().IDs())
	}
}

// TestARecordLeavesOutWhatPasses checks that a record has what a row needs, and nothing that is valid only while the
// VM runs.
func TestARecordLeavesOutWhatPasses(t *testing.T) {
	d := made(t, one)
	code, began := 3, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	vm := banger.VM{ID: one, Name: "box", State: banger.StateRunning, ExitCode: &code, Address: "127.64.0.2",
		Initramfs: "initrd", Kernel: "k", LivesSince: began, Halted: true, Restarts: 3, RestartAt: began}
	check(t, d.Recorder(one).Write(NewRecord(vm, 7)))
	r, err := ReadRecord(d.VMs(), one)
	want := Record{Slot: 7, VM: banger.VM{ID: one, Name: "box", State: banger.StateStopped, Kernel: "k",
		Initramfs: "initrd"}}
	if err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("the record is %+v, %v", r, err)
	}
	vm.Spec.TTL = banger.Timer{Seconds: 60, Action: banger.ActionRemove}
	if r := NewRecord(vm, 7); r.VM.LivesSince != began || r.VM.Spec.TTL != vm.Spec.TTL {
		t.Errorf("of a VM with a time to live the record is %+v", r)
	}
	check(t, os.Rename(filepath.Join(d.VMs(), one+".json"), filepath.Join(d.VMs(), two+".json")))
	if _, err := ReadRecord(d.VMs(), two); err == nil {
		t.Error("the record of another VM is taken")
	}
}
