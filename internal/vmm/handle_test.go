package vmm_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"banger/internal/vmm"
)

// TestAHandleTellsOneProcess checks that a handle identifies one process, and returns what it has
// used while it lives.
func TestAHandleTellsOneProcess(t *testing.T) {
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read line")
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	h, err := vmm.HandleOf(cmd.Process.Pid)
	check(t, err)
	_, err = out.Read(make([]byte, 1)) // it has worked
	check(t, err)
	if u, err := h.Usage(); err != nil || !h.Alive() || u.CPUTime <= 0 || u.CPUTime > time.Minute ||
		u.Memory < int64(os.Getpagesize()) {
		t.Errorf("a process that lives: alive %t, %+v, %v", h.Alive(), u, err)
	}
	other := vmm.Handle{PID: h.PID, StartTime: h.StartTime + 1}
	if _, err := other.Usage(); err == nil || other.Alive() {
		t.Errorf("another process with its pid: alive %t, %v", other.Alive(), err)
	}
	in.Close()
	cmd.Wait()
	if _, err := h.Usage(); err == nil || h.Alive() {
		t.Errorf("a process that has ended: alive %t, %v", h.Alive(), err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
