package reset

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/private"
)

// TestMain lets the test start itself as the processes of banger: "TEST daemon run DIR", which does not end when it is
// asked to if DIR has a file kvm.json, and "TEST shim DIR". Each tells that it is ready by closing its stdout.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "daemon":
		lock, _, err := private.Take(os.Args[3], daemonLock, time.Minute)
		if err != nil || lock.Write(private.Owner{PID: os.Getpid(), State: os.Args[3]}) != nil {
			os.Exit(1)
		}
		if _, err := os.Lstat(filepath.Join(os.Args[3], "kvm.json")); err == nil {
			signal.Ignore(syscall.SIGTERM)
		}
		waitForSignal()
	case len(os.Args) == 3 && os.Args[1] == "shim":
		waitForSignal()
	}
	os.Exit(m.Run())
}

func waitForSignal() {
	os.Stdout.Close()
	select {} // the signal ends the process
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// home returns directories as a daemon leaves them, with two VMs: "box" and one without a record.
func home(t *testing.T) Home {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "reset-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := Home{State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run"), ShimArgv: []string{"self", "shim"}}
	for name, text := range map[string]string{
		"state/daemon.lock": "", "state/daemon.start": "", "state/daemon.log": "ready", "state/banger.db": "no database",
		"state/banger.db.copy-0": "", "state/reserve": "", "state/reviews/0a.json": "{}",
		"state/programs/sha512-00": "", "state/work-00.lock": "", "state/agents/codex.tar": "",
		"state/dns.port": "15353", "state/ssh/id_ed25519": "key",
		"state/images/sha256/aa/rootfs.ext4": "image", "state/images/references.json": "{}",
		"state/kernels/linux/vmlinux": "kernel", "state/lost/0123456789ad/disk.ext4": "",
		"state/vms/0123456789ab/disk.ext4": "disk",
		"state/vms/0123456789ab.json":      `{"vm":{"id":"0123456789ab","name":"box"}}`,
		"state/vms/0123456789ac/disk.ext4": "disk", "state/lost+found/x": "",
		"state/templates/ready/0123456789ae/template.json":  "{}",
		"state/templates/making/vms/0123456789af/disk.ext4": "disk",
		"run/templates/vms/0123456789af/channel.sock":       "",
		"run/daemon.lock": "", "run/api.sock": "", "run/vms/0123456789ab/channel.sock": "",
	} {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return h
}

// tree returns the paths below the directories of h.
func tree(h Home) (paths []string) {
	filepath.WalkDir(filepath.Dir(h.State), func(path string, _ fs.DirEntry, err error) error {
		if path != filepath.Dir(h.State) && err == nil {
			paths = append(paths, strings.TrimPrefix(path, filepath.Dir(h.State)+"/"))
		}
		return nil
	})
	return paths
}

func remove(t *testing.T, h Home, keep ...string) error {
	t.Helper()
	return Remove(t.Context(), h, keep, func(string) {})
}

// start starts this program as a process of banger and returns when it is ready.
func start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	out.Read(make([]byte, 1)) // returns when the process closes it
	return cmd
}

func TestWhatIsFound(t *testing.T) {
	h := home(t)
	start(t, "shim", filepath.Join(h.State, "vms", "0123456789ab"))
	daemon := start(t, "daemon", "run", h.State)
	f, err := Look(h)
	check(t, err)
	if len(f.VMs) != 2 || f.VMs[0].ID != "0123456789ac" || f.VMs[1].Name != "box" || f.VMs[0].Running ||
		!f.VMs[1].Running || f.VMs[1].Bytes == 0 {
		t.Errorf("the VMs are %+v", f.VMs)
	}
	if f.Images.Count != 1 || f.Kernels.Count != 1 || f.Lost.Count != 1 || f.Frozen.Count != 1 || f.Other.Count != 12 ||
		f.Images.Bytes == 0 || f.Daemon != daemon.Process.Pid || f.Bridges || f.Empty() || f.Bytes() < f.Images.Bytes {
		t.Errorf("it finds %+v", f)
	}
}

// TestNothingIsLeft removes everything while a daemon and a VM run; what a file system has at its top stays. A second
// time there is nothing to do.
func TestNothingIsLeft(t *testing.T) {
	h := home(t)
	daemon := start(t, "daemon", "run", h.State)
	vm := start(t, "shim", filepath.Join(h.State, "vms", "0123456789ab"))
	making := start(t, "shim", filepath.Join(h.State, "templates", "making", "vms", "0123456789af"))
	helper := start(t, "shim", filepath.Join(h.State, "helpers", "vms", "0123456789b0"))
	other := start(t, "shim", filepath.Join(t.TempDir(), "vms", "0123456789ab"))
	check(t, remove(t, h))
	if left := tree(h); !slices.Equal(left, []string{"state", "state/lost+found", "state/lost+found/x"}) {
		t.Errorf("left are %q", left)
	}
	for _, ended := range []*exec.Cmd{daemon, vm, making, helper} {
		if err := ended.Wait(); err == nil {
			t.Error("a process has ended by itself")
		}
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error("the VM of another directory was ended too")
	}
	check(t, remove(t, h))
}

// TestADaemonThatDoesNotEndIsKilled, after it was asked.
func TestADaemonThatDoesNotEndIsKilled(t *testing.T) {
	endWait = 0
	h := home(t)
	check(t, os.WriteFile(filepath.Join(h.State, "kvm.json"), nil, 0o600))
	daemon := start(t, "daemon", "run", h.State)
	check(t, remove(t, h))
	daemon.Wait()
	if s, ok := daemon.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Errorf("it has ended by %v", daemon.ProcessState)
	}
}

func TestWhatIsKept(t *testing.T) {
	h := home(t)
	check(t, os.RemoveAll(filepath.Join(h.State, "lost+found")))
	check(t, remove(t, h, "ssh", "dns.port"))
	want := []string{"state", "state/daemon.lock", "state/daemon.start", "state/dns.port", "state/ssh",
		"state/ssh/id_ed25519"}
	if left := tree(h); !slices.Equal(left, want) {
		t.Errorf("left are %q", left)
	}
	if check(t, remove(t, h)); len(tree(h)) != 0 {
		t.Errorf("after the next time there are %q", tree(h))
	}
}

// TestALinkIsNotFollowed has a link in the place of a directory of ours, and one deeper.
func TestALinkIsNotFollowed(t *testing.T) {
	h := home(t)
	outside := t.TempDir()
	file := filepath.Join(outside, "sha256", "file")
	check(t, os.Mkdir(filepath.Dir(file), 0o700))
	check(t, os.WriteFile(file, nil, 0o600))
	check(t, os.RemoveAll(filepath.Join(h.State, "images")))
	for _, link := range []string{"images", "jail", "vms/0123456789ab/link", "kernels/linux/link"} {
		check(t, os.Symlink(outside, filepath.Join(h.State, link)))
	}
	check(t, remove(t, h))
	if _, err := os.Stat(file); err != nil {
		t.Error("a file outside is gone")
	}
}

// TestWhatIsNotBangersIsRefused, before anything is removed.
func TestWhatIsNotBangersIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(h Home) error
		say   string
	}{
		"another's file": {func(h Home) error { return os.WriteFile(h.State+"/letter", nil, 0o600) },
			`state holds "letter", which is not banger's`},
		"another's file in the run directory": {func(h Home) error { return os.WriteFile(h.Run+"/bus", nil, 0o600) },
			`run holds "bus"`},
		"another's directory of VMs": {func(h Home) error { return os.Mkdir(h.State+"/vms/windows", 0o700) },
			`vms holds "windows"`},
		"no mark": {func(h Home) error {
			return errors.Join(os.Remove(h.State+"/daemon.lock"), os.Remove(h.State+"/daemon.start"))
		}, "has no file daemon.lock"},
		"a directory in the mark's place": {func(h Home) error {
			return errors.Join(os.Remove(h.State+"/daemon.lock"), os.Remove(h.State+"/daemon.start"),
				os.Mkdir(h.State+"/daemon.lock", 0o700))
		}, "has no file daemon.lock"},
		"a directory that others may change": {func(h Home) error { return os.Chmod(h.State, 0o777) },
			"other users may replace"},
		"a link": {func(h Home) error {
			return errors.Join(os.Rename(h.State, h.State+".real"), os.Symlink(h.State+".real", h.State))
		}, "is a symbolic link"},
	} {
		h := home(t)
		check(t, c.spoil(h))
		before := tree(h)
		err := remove(t, h)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: the error is %v", name, err)
		}
		if !slices.Equal(tree(h), before) {
			t.Errorf("%s: something was removed", name)
		}
	}
}

// TestAHomeDirectoryIsNeverEmptied uses a directory with the usual things of people.
func TestAHomeDirectoryIsNeverEmptied(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"images", "vms", "alice", ".ssh"} {
		check(t, os.MkdirAll(filepath.Join(dir, "state", name), 0o700))
	}
	h := Home{State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run"), ShimArgv: []string{"self", "shim"}}
	if err := remove(t, h); banger.CodeOf(err) != banger.CodeInvalid || len(tree(h)) != 5 {
		t.Errorf("the error is %v, and there are %q", err, tree(h))
	}
}

// TestADirectoryThatAnotherProcessHoldsIsLeft: it may be any process, which is not ended.
func TestADirectoryThatAnotherProcessHoldsIsLeft(t *testing.T) {
	h := home(t)
	lock, _, err := private.Take(h.State, daemonLock, time.Minute)
	check(t, err)
	defer lock.Release()
	check(t, lock.Write(private.Owner{PID: os.Getpid()}))
	before := tree(h)
	if err := remove(t, h); banger.CodeOf(err) != banger.CodeConflict || !slices.Equal(tree(h), before) {
		t.Errorf("the error is %v, and there are %q", err, tree(h))
	}
}

// TestNoDaemonStartsMeanwhile looks from a step of the removal whether another process can take the locks.
func TestNoDaemonStartsMeanwhile(t *testing.T) {
	h := home(t)
	steps := 0
	check(t, Remove(t.Context(), h, nil, func(step string) {
		if steps++; step == "stopping the daemon" {
			return // the locks are taken now
		}
		for dir, name := range map[string]string{h.State: daemonLock, h.Run: daemonLock} {
			if _, _, err := private.Take(dir, name, 0); !errors.Is(err, private.ErrLocked) {
				t.Errorf("while it is %s: the lock of %s can be taken (%v)", step, dir, err)
			}
		}
		if _, _, err := private.Take(h.State, startLock, 0); !errors.Is(err, private.ErrLocked) {
			t.Errorf("while it is %s: a client can start a daemon (%v)", step, err)
		}
	}))
	if steps < 3 {
		t.Errorf("there were %d steps", steps)
	}
}

// TestAnInterruptedRemovalIsRepeated interrupts it when the daemon is to end.
func TestAnInterruptedRemovalIsRepeated(t *testing.T) {
	h := home(t)
	check(t, os.WriteFile(filepath.Join(h.State, "kvm.json"), nil, 0o600))
	start(t, "daemon", "run", h.State)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := tree(h)
	if err := Remove(ctx, h, nil, func(string) {}); err == nil || !slices.Equal(tree(h), before) {
		t.Errorf("the error is %v, and there are %q", err, tree(h))
	}
	endWait = 0
	check(t, remove(t, h))
}

// TestAMountIsNotEmptied, whatever the path looks like in the kernel's list.
func TestAMountIsNotEmptied(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b")
	check(t, os.Mkdir(dir, 0o700))
	escaped := strings.ReplaceAll(dir, " ", `\040`)
	for line, refused := range map[string]bool{
		"30 20 8:1 / " + escaped + "/images rw - ext4 /dev/sda1 rw\n": true,
		"30 20 8:1 / " + escaped + " rw - ext4 /dev/sda1 rw\n":        false,
		"30 20 8:1 / " + escaped + "c rw - ext4 /dev/sda1 rw\n":       false,
	} {
		list := filepath.Join(t.TempDir(), "mountinfo")
		check(t, os.WriteFile(list, []byte(line), 0o600))
		if err := checkMounts(dir, list); refused != (banger.CodeOf(err) == banger.CodeConflict) || !refused && err != nil {
			t.Errorf("%s: the error is %v", line, err)
		}
	}
}
