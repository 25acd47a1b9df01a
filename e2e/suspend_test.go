package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stormRounds is how many kills TestKillsWhileAVMStandsStill makes. BANGER_SUSPEND_KILLS sets another number.
const stormRounds = 40

// TestKillsWhileAVMStandsStill kills the daemon, the client, the shim or the VMM at random instants of suspend,
// resume and a wake by exec. Afterwards the VM is as before or as asked for, with its memory; or it has failed, as
// any VM whose VMM is killed, and its disk has all that was synced.
func TestKillsWhileAVMStandsStill(t *testing.T) {
	if testing.Short() || os.Getenv(onlyDiffering) == "1" {
		t.Skip("it boots real guests, and runs once, as an ordinary user where there is one")
	}
	t.Parallel() // with the other storm: each leaves a CPU idle
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("BANGER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("BANGER_SEED=%d", seed)
	rounds := stormRounds
	if n, err := strconv.Atoi(os.Getenv("BANGER_SUSPEND_KILLS")); err == nil {
		rounds = n
	}
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	s := &suspendStorm{T: t, w: w, random: rand.New(rand.NewPCG(seed, 0))}
	defer func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}()
	s.must("run", "-d", "-q", "--name", "box", "debian-bookworm")
	s.renewMark()
	counts := map[string]int{}
	for round := range rounds {
		counts[s.round(round)]++
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d kills: %v", rounds, counts)
}

// suspendStorm is one VM, "box", that stands still and goes on while things are killed.
type suspendStorm struct {
	*testing.T
	w      *world
	random *rand.Rand
	mark   string // content of a file in the guest's memory
	synced int    // lines in a file on the guest's disk that were synced
}

// try runs banger, and returns what it says.
func (s *suspendStorm) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	out, err := s.w.command(ctx, args...).CombinedOutput()
	return string(out), err
}

func (s *suspendStorm) must(args ...string) string {
	s.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.Fatalf("banger %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// renewMark puts something into the memory of a VM that has booted.
func (s *suspendStorm) renewMark() {
	s.mark = s.must("exec", "box", "sh", "-c", "mount -t tmpfs none /mnt; cat /proc/sys/kernel/random/uuid | tee /mnt/mark")
}

// write appends a line to a file on the VM's disk, and syncs it.
func (s *suspendStorm) write() {
	s.synced++
	s.must("exec", "box", "sh", "-c", fmt.Sprintf("echo %d >>/root/log && sync", s.synced))
}

// state waits until the VM is in a state in which it stays. A VM that is said to run must answer: the daemon hears of
// the death of a VMM a moment after it.
func (s *suspendStorm) state() string {
	s.Helper()
	var vms []struct{ State, Reason string }
	for range 1200 {
		out := s.must("inspect", "box")
		if err := json.Unmarshal([]byte(out), &vms); err != nil || len(vms) != 1 {
			s.Fatalf("inspect says %q, %v", out, err)
		}
		switch vms[0].State {
		case "running":
			if _, err := s.try("exec", "box", "true"); err == nil {
				return "running"
			}
		case "suspended", "failed", "stopped":
			return vms[0].State
		}
		time.Sleep(50 * time.Millisecond) // asks again
	}
	s.Fatalf("the VM stays %s: %s", vms[0].State, vms[0].Reason)
	return ""
}

// round does one thing, kills one process meanwhile, and checks what is left. It returns what has happened, in words.
func (s *suspendStorm) round(n int) string {
	before := s.state()
	if before == "running" {
		s.write()
	}
	verbs := map[string][][]string{"running": {{"suspend", "box"}},
		"suspended": {{"resume", "-q", "box"}, {"exec", "box", "true"}}}[before]
	verb := verbs[s.random.IntN(len(verbs))]
	victim := []string{"daemon", "client", "shim", "VMM"}[s.random.IntN(4)]
	delay := time.Duration(s.random.Int64N(int64(600 * time.Millisecond)))
	var said bytes.Buffer
	client := s.w.command(s.Context(), verb...)
	client.Stdout, client.Stderr = &said, &said
	if err := client.Start(); err != nil {
		s.Fatal(err)
	}
	time.Sleep(delay) // the random instant
	if victim == "client" {
		client.Process.Kill()
	} else {
		s.kill(victim)
	}
	end := client.Wait()
	after := s.state()
	what := fmt.Sprintf("%s, %s killed: %s", verb[0], victim, after)
	s.Logf("%d: %s after %d ms; %v %s", n, what, delay.Milliseconds(), end, strings.TrimSpace(said.String()))
	s.checkFiles(after)
	switch after {
	case "running":
		s.checkMemory()
	case "suspended":
		if s.random.IntN(2) == 0 { // sometimes the next round finds it so
			s.must("resume", "-q", "box")
			s.checkMemory()
		}
	default:
		if victim == "daemon" || victim == "client" {
			s.Errorf("the death of the "+victim+" has cost the VM its memory: %s", s.must("inspect", "box"))
		}
		s.must("start", "-q", "box")
		s.renewMark()
		s.checkFiles("running")
		s.checkDisk()
	}
	return what
}

// kill kills one process of a kind, if there is one.
func (s *suspendStorm) kill(victim string) {
	if victim == "daemon" {
		if pid, err := strconv.Atoi(s.w.daemon()); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		return
	}
	for _, p := range s.w.processes() {
		shim := len(p.args) > 1 && p.args[1] == "shim"
		vmm := len(p.args) > 0 && strings.Contains(p.args[0], "qemu-system")
		if victim == "shim" && shim || victim == "VMM" && vmm {
			syscall.Kill(p.pid, syscall.SIGKILL)
			return
		}
	}
}

// checkMemory checks that the VM has the memory that it had, and its disk.
func (s *suspendStorm) checkMemory() {
	s.Helper()
	if got := s.must("exec", "box", "cat", "/mnt/mark"); got != s.mark {
		s.Errorf("in its memory is %q, and was %q", got, s.mark)
	}
	s.checkDisk()
}

func (s *suspendStorm) checkDisk() {
	s.Helper()
	lines := strings.Fields(s.must("exec", "box", "cat", "/root/log"))
	if len(lines) != s.synced {
		s.Errorf("its disk has %d lines of %d", len(lines), s.synced)
	}
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			s.Errorf("line %d on its disk is %q", i, line)
		}
	}
}

// checkFiles checks that there is a snapshot while the VM is suspended and no file of one while it runs.
func (s *suspendStorm) checkFiles(state string) {
	s.Helper()
	files, err := filepath.Glob(filepath.Join(s.w.state, "vms", "*", "snapshot.*"))
	if err != nil {
		s.Fatal(err)
	}
	whole := false
	for _, f := range files {
		whole = whole || filepath.Base(f) == "snapshot.json"
	}
	if whole != (state == "suspended") || state == "running" && len(files) > 0 {
		s.Errorf("the VM is %s, and there are %v", state, files)
	}
	if state == "suspended" {
		for _, p := range s.w.processes() {
			if len(p.args) > 1 && p.args[1] != "daemon" {
				s.Errorf("a suspended VM has the process %.200q", p.args)
			}
		}
	}
}
