package server

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/shim"
	"banger/internal/vmm"
)

// TestWhoMayCallAShim lets processes of several users ask a shim for its status.
func TestWhoMayCallAShim(t *testing.T) {
	const env = "BANGER_TEST_CALL"
	if socket := os.Getenv(env); socket != "" {
		callFromHere(t, socket)
		return
	}
	me := uint32(os.Geteuid())
	for _, tt := range []struct {
		name        string
		daemon, uid uint32
		isVMM       bool
		heard       bool
	}{
		{"the daemon's user", me, me, false, true},
		{"the VMM, which is the same user", me, me, true, false},
		{"the VM's own user", 0, 2_000_000_001, false, false},
		{"another user", 2_000_000_001, 2_000_000_002, false, false},
		{"the daemon's user, who is not root", 2_000_000_001, 2_000_000_001, false, true},
		{"root, where the daemon is not", 2_000_000_001, 0, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if me != 0 && tt.uid != me {
				if got := allowed(unix.Ucred{Pid: 7, Uid: tt.uid}, tt.daemon, 8); got != tt.heard {
					t.Errorf("heard is %t", got)
				}
				return
			}
			dir, err := os.MkdirTemp("", "peer")
			check(t, err)
			defer os.RemoveAll(dir)
			check(t, os.Chmod(dir, 0o755))
			socket := filepath.Join(dir, shim.SocketFile)
			ln, err := listenControl(socket)
			check(t, err)
			defer ln.Close()
			check(t, os.Chmod(socket, 0o666))
			vm := &whose{running: running{done: make(chan struct{})}}
			s := &server{places: newPlaces(), proc: vm, daemon: tt.daemon,
				muxNext: make(chan struct{}), settled: make(chan struct{})}
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestWhoMayCallAShim$")
			cmd.Env = append(os.Environ(), env+"="+socket)
			if me == 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
			}
			out := &strings.Builder{}
			cmd.Stdout, cmd.Stderr = out, out
			check(t, cmd.Start())
			if tt.isVMM {
				vm.pid = cmd.Process.Pid
			}
			s.wg.Go(func() { s.accept(t.Context(), ln) }) // the VMM's pid is known now
			err = cmd.Wait()
			if heard := err == nil; heard != tt.heard {
				t.Errorf("heard is %t: %v\n%s", heard, err, out)
			}
		})
	}
}

// whose is a VMM with a pid.
type whose struct {
	running
	pid int
}

func (w *whose) Handle() vmm.Handle { return vmm.Handle{PID: w.pid} }

// callFromHere fails the test unless the shim answers.
func callFromHere(t *testing.T, socket string) {
	conn, err := net.Dial("unix", socket)
	check(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = io.WriteString(conn, shim.CallStatus+"\n")
	check(t, err)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}
