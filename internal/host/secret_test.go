package host_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"banger/internal/host"
)

// TestMain also runs the process that the tests examine from outside.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "secretive" {
		host.HideArgument(strings.Clone(os.Args[3]))
		host.HideArgument("NAME=" + "other")
		if err := host.KeepMemory(); err != nil {
			fmt.Println(err)
		}
		fmt.Println("ready")
		bufio.NewReader(os.Stdin).ReadByte()
		return
	}
	os.Exit(m.Run())
}

func TestAProcessKeepsItsSecrets(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "secretive", "-e", "TOKEN=s3cret", "--env=TOKEN=s3cret", "NAME=value")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	shown, err := os.ReadFile(proc + "cmdline")
	want := "/proc/self/exe\x00secretive\x00-e\x00TOKEN=******\x00--env=TOKEN=******\x00NAME=value\x00"
	if string(shown) != want || err != nil {
		t.Errorf("its command line shows %q, %v", shown, err)
	}
	limits, err := os.ReadFile(proc + "limits")
	if err != nil || !strings.Contains(string(limits), "Max core file size        0 ") {
		t.Errorf("its limits are %s, %v", limits, err)
	}
	info, err := os.Stat(proc + "mem") // root owns the files of a process that is not dumpable
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its memory: %v, %v", info, err)
	}
	if os.Geteuid() != 0 {
		if f, err := os.Open(proc + "mem"); err == nil {
			f.Close()
			t.Error("a process of the same user reads its memory")
		}
	}
}
