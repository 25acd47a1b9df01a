package agent

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
)

// TestProcesses finds this process, and one with a long command and brackets in its name.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	program := dir + "/a) b (c"
	data, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"1000"}, strings.Fields(strings.Repeat("0 ", 500))...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	list := processes()
	find := func(pid int) banger.Process {
		i := slices.IndexFunc(list, func(p banger.Process) bool { return p.PID == pid })
		if i < 0 {
			t.Fatalf("process %d is not in %+v", pid, list)
		}
		return list[i]
	}
	self, child := find(os.Getpid()), find(cmd.Process.Pid)
	if self.Parent != os.Getppid() || self.UID != uint32(os.Getuid()) || self.Memory < 1<<20 || self.CPUTime < 0 {
		t.Errorf("this process is %+v", self)
	}
	if ago := time.Since(self.Started); ago < -2*time.Second || ago > time.Hour {
		t.Errorf("this process has run for %s", ago)
	}
	whole := len(child.Command) == banger.MaxCommand
	if child.Parent != os.Getpid() || !whole || !strings.HasPrefix(child.Command, program+" 1000 0 0") {
		t.Errorf("the child is %+v", child)
	}
	for _, p := range list {
		if p.Parent == kthreadd || p.PID == kthreadd {
			t.Errorf("%+v is of the kernel", p)
		}
	}
}
