package supervisor_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"banger"
)

// TestTrapsInAVMsDirectory lets a hostile VMM replace each file that the daemon reads, writes or removes in the VM's
// directory.
func TestTrapsInAVMsDirectory(t *testing.T) {
	for name, set := range map[string]func(t *testing.T, path, ours string){
		"symlinks": func(t *testing.T, path, ours string) { check(t, os.Symlink(ours, path)) },
		"pipes":    func(t *testing.T, path, _ string) { check(t, syscall.Mkfifo(path, 0o666)) },
		"directories": func(t *testing.T, path, _ string) {
			check(t, os.MkdirAll(filepath.Join(path, "deep", "in", "it"), 0o755))
		},
		"files of 3 GiB": func(t *testing.T, path, _ string) {
			check(t, os.WriteFile(path, nil, 0o600))
			check(t, os.Truncate(path, 3<<30))
		},
		"other names of a file": func(t *testing.T, path, ours string) { check(t, os.Link(ours, path)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			ours := h.path("ours")
			check(t, os.WriteFile(ours, []byte(`{"exit":{"reason":"ours"}}`), 0o600))
			s := h.daemon()
			vm := h.run(s, h.spec("box"))
			trap := func() {
				for _, file := range []string{"exit.json", "exit.json.tmp", "console.log", "console.log.1",
					"output.log", "output.log.1", "denials.jsonl",
					"shim.json", "shim.err", "ram", "other"} {
					path := filepath.Join(h.path("state/vms"), vm.ID, file)
					os.Remove(path)
					set(t, path, ours)
				}
			}
			trap()
			check(t, syscall.Kill(h.status(vm.ID).Shim.PID, syscall.SIGKILL))
			within(t, "ps, logs, decisions", func() {
				_, err := s.Wait(h.ctx(), "box")
				check(t, err)
				h.wantState(s, "box", banger.StateFailed, "its shim was killed")
				var out bytes.Buffer
				s.Guests().Logs(h.ctx(), "box", -1, false, &out)
				s.Guests().Output(h.ctx(), "box", banger.LogView{Tail: -1}, &out)
				s.Guests().Decisions().Write(h.ctx(), "box", true, -1, false, &out)
				if bytes.Contains(out.Bytes(), []byte("ours")) {
					t.Errorf("what is not the VM's is told: %.100q", out.Bytes())
				}
			})
			within(t, "start, stop", func() {
				_, err := s.Start(h.ctx(), "box", false, false, banger.Discard)
				check(t, err)
				trap()
				_, err = s.Stop(h.ctx(), "box", time.Second)
				check(t, err)
			})
			within(t, "another daemon", func() {
				_, err := s.Start(h.ctx(), "box", false, false, banger.Discard)
				check(t, err)
				trap()
				pid := h.status(vm.ID).Shim.PID
				s.Close()
				check(t, syscall.Kill(pid, syscall.SIGKILL))
				s = h.daemon()
				h.wantState(s, "box", banger.StateFailed, "its shim was killed")
			})
			trap()
			within(t, "rm", func() { check(t, s.Remove(h.ctx(), "box", true)) })
			h.wantNothing(s)
			if data, err := os.ReadFile(ours); err != nil || string(data) != `{"exit":{"reason":"ours"}}` {
				t.Errorf("the file that is not the VM's holds %q: %v", data, err)
			}
			var used runtime.MemStats
			if runtime.ReadMemStats(&used); used.HeapSys > 1<<30 {
				t.Errorf("the heap has %d bytes", used.HeapSys)
			}
		})
	}
}

// TestADiskThatIsNotTheVMsOwnIsNotUsed: another user's file must not become a guest's disk.
func TestADiskThatIsNotTheVMsOwnIsNotUsed(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm, err := s.Create(h.ctx(), h.spec("box"), nil, false, banger.Discard)
	check(t, err)
	ours := h.path("ours")
	check(t, os.WriteFile(ours, nil, 0o600))
	disk := filepath.Join(h.path("state/vms"), vm.ID, "disk.ext4")
	check(t, os.Remove(disk))
	check(t, os.Symlink(ours, disk))
	_, err = s.Start(h.ctx(), "box", false, false, banger.Discard)
	wantCode(t, err, banger.CodeConflict)
	check(t, s.Remove(h.ctx(), "box", false))
	if _, err := os.Stat(ours); err != nil {
		t.Error(err)
	}
}

// within fails the test if f takes long, because f must not wait for a VM.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	late := time.AfterFunc(patience, func() { panic("this hangs: " + what) })
	defer late.Stop()
	f()
}

// TestAStrangersProcessIsNoShim, whatever its command line says. The test needs root to start a process of another
// user.
func TestAStrangersProcessIsNoShim(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root starts processes of others")
	}
	h := newHost(t)
	dir, err := os.MkdirTemp("", "stranger")
	check(t, err)
	defer os.RemoveAll(dir)
	check(t, os.Chmod(dir, 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "shim"), []byte("read line; exit 7\n"), 0o644))
	args := append(slices.Clone(h.opts.ShimArgv[1:]), filepath.Join(h.opts.StateDir, "vms", "0123456789ab"))
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}}
	in, err := cmd.StdinPipe()
	check(t, err)
	check(t, cmd.Start())
	h.daemon()
	in.Close()
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("it ends with %s", cmd.ProcessState)
	}
}
