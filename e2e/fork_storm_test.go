package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// branchRounds is how many kills TestKillsWhileVMsBranch makes. BANGER_BRANCH_KILLS sets another number.
const branchRounds = 40

// TestKillsWhileVMsBranch kills the daemon at random instants while a snapshot of a VM is taken or removed, while the
// VM goes back to one, and while it is forked. Afterwards the VM has the state of before or, after a restore, that of
// the snapshot, with its memory and all that was synced. Nothing is left that nobody names, and the same request
// succeeds.
func TestKillsWhileVMsBranch(t *testing.T) {
	if testing.Short() || os.Getenv(onlyDiffering) == "1" {
		t.Skip("it boots real guests, and runs once, as an ordinary user where there is one")
	}
	t.Parallel() // with the other storm: each leaves a CPU idle
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("BANGER_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("BANGER_SEED=%d", seed)
	rounds := branchRounds
	if n, err := strconv.Atoi(os.Getenv("BANGER_BRANCH_KILLS")); err == nil {
		rounds = n
	}
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	s := &branchStorm{suspendStorm{T: t, w: w, random: rand.New(rand.NewPCG(seed, 0))}, truth{}}
	defer func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}()
	s.must("run", "-d", "-q", "--name", "box", "debian-bookworm")
	s.renewMark()
	s.write()
	s.must("snapshot", "create", "-q", "box", "kept")
	s.kept = truth{s.mark, s.synced}
	counts := map[string]int{}
	for round := range rounds {
		counts[s.round(round)]++
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d kills: %v", rounds, counts)
}

// truth is what a VM must have: a file in its memory unless mark is "", and lines on its disk.
type truth struct {
	mark   string
	synced int
}

// branchStorm is one VM, "box", with a snapshot "kept".
type branchStorm struct {
	suspendStorm
	kept truth // what the snapshot has
}

// longest is the latest instant at which the daemon is killed, for each verb.
var longest = map[string]time.Duration{"create": 300 * time.Millisecond, "rm": 60 * time.Millisecond,
	"restore": 900 * time.Millisecond, "fork": 900 * time.Millisecond}

// round does one thing with the VM, which runs or stands still, kills the daemon meanwhile, checks what is left, and
// does the same again. It returns what has happened, in words.
func (s *branchStorm) round(n int) string {
	s.write()
	state := []string{"running", "running", "paused", "suspended", "stopped"}[s.random.IntN(5)]
	if verb := map[string]string{"paused": "pause", "suspended": "suspend", "stopped": "stop"}[state]; verb != "" {
		s.must(verb, "box")
	}
	name := fmt.Sprint("made", n)
	verb := []string{"create", "restore", "fork", "rm"}[s.random.IntN(4)]
	args := map[string][]string{"create": {"snapshot", "create", "box", name}, "rm": {"snapshot", "rm", name},
		"restore": {"snapshot", "restore", "box", "kept"}, "fork": {"fork", "box", "--name", name}}[verb]
	if verb == "rm" {
		s.must("snapshot", "create", "-q", "box", name)
	}
	delay := time.Duration(s.random.Int64N(int64(longest[verb])))
	var said bytes.Buffer
	client := s.w.command(s.Context(), args...)
	client.Stdout, client.Stderr = &said, &said
	if err := client.Start(); err != nil {
		s.Fatal(err)
	}
	time.Sleep(delay) // the random instant
	s.kill("daemon")
	end := client.Wait()
	s.Logf("%d: %s, %s, killed after %d ms; %v %s", n, state, verb, delay.Milliseconds(), end,
		strings.TrimSpace(said.String()))
	what := s.check(verb, name, state)
	s.checkNamed()
	s.again(verb, name, args)
	s.goOn()
	s.checkNamed()
	return what
}

// check checks what the death of the daemon has left of a request, and returns it in words.
func (s *branchStorm) check(verb, name, state string) string {
	s.Helper()
	now := s.settled()
	switch verb {
	case "restore":
		if s.isKept(now) {
			return "restore: done"
		}
		fallthrough
	case "create", "rm":
		if now != state {
			s.Errorf("the VM is %s: %s", now, s.must("inspect", "box"))
		}
		s.checkTruth("box", now, truth{s.mark, s.synced})
		return fmt.Sprint(verb, ": snapshot ", strings.Contains(s.must("snapshot", "ls"), name+" "))
	}
	if now != state {
		s.Errorf("the VM is %s: %s", now, s.must("inspect", "box"))
	}
	s.checkTruth("box", now, truth{s.mark, s.synced})
	if !strings.Contains(s.must("ps", "-a"), name+" ") {
		return "fork: none"
	}
	want := truth{s.mark, s.synced}
	if state == "stopped" { // so the fork has booted
		want.mark = ""
	}
	s.checkTruth(name, "running", want)
	s.must("rm", "-f", name)
	return "fork: done"
}

// isKept reports whether the VM has gone back to the snapshot, and has the memory of then. It runs or, if the daemon
// has died just before it went on, is suspended and goes on when it is used.
func (s *branchStorm) isKept(state string) bool {
	switch state {
	case "suspended":
		s.must("resume", "-q", "box")
	case "running":
	default:
		return false
	}
	lines := len(strings.Fields(s.must("exec", "box", "cat", "/root/log")))
	if lines != s.kept.synced {
		return false
	}
	s.mark, s.synced = s.kept.mark, s.kept.synced
	s.checkTruth("box", "running", s.kept)
	return true
}

// checkTruth checks the disk of a VM, and its memory if it has any. A VM that stands still goes on for that, and one
// that is stopped is started.
func (s *branchStorm) checkTruth(vm, state string, want truth) {
	s.Helper()
	switch state {
	case "paused", "suspended":
		s.must("resume", "-q", vm)
	case "stopped":
		s.must("start", "-q", vm)
		s.renewMark()
		want.mark = s.mark
	}
	if got, err := s.try("exec", vm, "cat", "/mnt/mark"); want.mark != "" && (err != nil || got != want.mark) {
		s.Errorf("in the memory of %s is %q, and was %q", vm, got, want.mark)
	}
	lines := strings.Fields(s.must("exec", vm, "cat", "/root/log"))
	if len(lines) != want.synced || !slices.IsSortedFunc(lines, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	}) {
		s.Errorf("the disk of %s has the lines %q, and not %d", vm, lines, want.synced)
	}
}

// again makes the same request, which now succeeds.
func (s *branchStorm) again(verb, name string, args []string) {
	s.Helper()
	there := strings.Contains(s.must("snapshot", "ls"), name+" ")
	switch {
	case verb == "create" && there: // its name is taken
		s.must("snapshot", "rm", name)
		s.must(args...)
	case verb == "rm" && !there: // it is done
	case verb == "restore":
		s.must(args...)
		if state := s.settled(); state != "running" || !s.isKept(state) {
			s.Errorf("the VM did not go back: %s", s.must("inspect", "box"))
		}
	case verb == "fork":
		s.must(args...)
		s.checkTruth(name, "running", truth{s.mark, s.synced})
		s.must("rm", "-f", name)
	default:
		s.must(args...)
	}
}

// goOn prepares the next round: the VM runs, and has the snapshot "kept" only.
func (s *branchStorm) goOn() {
	s.Helper()
	if state := s.settled(); state != "running" {
		s.Fatalf("the VM is %s", state)
	}
	for _, name := range strings.Fields(s.must("snapshot", "ls", "--format", "{{.name}}")) {
		if name != "kept" {
			s.must("snapshot", "rm", name)
		}
	}
}

// settled waits until the VM is in a state in which it stays, and returns that.
func (s *branchStorm) settled() string {
	s.Helper()
	var last struct{ State, Restoring string }
	ok := poll(time.Minute, func() bool {
		vms := []struct{ State, Restoring string }{}
		if err := json.Unmarshal([]byte(s.must("inspect", "box")), &vms); err != nil || len(vms) != 1 {
			s.Fatal(err)
		}
		last = vms[0]
		at := []string{"running", "paused", "suspended", "stopped", "failed"}
		return last.Restoring == "" && slices.Contains(at, last.State)
	})
	if !ok {
		s.Fatalf("the VM stays %+v", last)
	}
	return last.State
}

// checkNamed checks that there is no file but those that VMs and snapshots name. Some of them go a moment later.
func (s *branchStorm) checkNamed() {
	s.Helper()
	var odd []string
	if !poll(10*time.Second, func() bool { odd = s.unnamed(); return len(odd) == 0 }) {
		s.Errorf("nothing names %v", odd)
	}
}

func (s *branchStorm) unnamed() (odd []string) {
	s.Helper()
	named, needed := map[string]bool{}, []string{}
	for list, dir := range map[string]string{"ps -aq": "vms", "snapshot ls -q": "snapshots"} {
		for _, ref := range strings.Fields(s.must(strings.Fields(list)...)) {
			var about []struct{ ID, Base, Layer string }
			inspect := []string{"inspect", ref}
			if dir == "snapshots" {
				inspect = []string{"snapshot", "inspect", ref}
			}
			if err := json.Unmarshal([]byte(s.must(inspect...)), &about); err != nil {
				s.Fatal(err)
			}
			named[dir+"/"+about[0].ID] = true
			needed = append(needed, about[0].Base, about[0].Layer)
		}
	}
	for len(needed) > 0 {
		id := needed[0]
		if needed = needed[1:]; id == "" || named["layers/"+id] {
			continue
		}
		named["layers/"+id] = true
		var layer struct{ Parent string }
		data, err := os.ReadFile(filepath.Join(s.w.state, "layers", id, "layer.json"))
		if err == nil {
			err = json.Unmarshal(data, &layer)
		}
		if err != nil {
			odd = append(odd, err.Error())
		}
		needed = append(needed, layer.Parent)
	}
	for _, dir := range []string{"vms", "snapshots", "layers"} {
		entries, err := os.ReadDir(filepath.Join(s.w.state, dir))
		if err != nil {
			s.Fatal(err)
		}
		for _, e := range entries {
			if path := dir + "/" + e.Name(); !named[strings.TrimSuffix(path, ".json")] {
				odd = append(odd, path)
			}
		}
	}
	disks, _ := filepath.Glob(filepath.Join(s.w.state, "vms/*/disk*"))
	snaps, _ := filepath.Glob(filepath.Join(s.w.state, "vms/*/snap"))
	vms := 0
	for path := range named {
		if strings.HasPrefix(path, "vms/") {
			vms++
		}
	}
	if len(disks) != vms || len(snaps) > 0 {
		odd = append(odd, append(disks, snaps...)...)
	}
	return odd
}
