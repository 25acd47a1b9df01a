package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/internal/api/client"
	"banger/internal/testing/hosttest"
	"banger/internal/vmm/choice"
)

// patience bounds each wait of the storm. Only a failing wait takes nearly as long.
const patience = time.Minute

// TestMain also runs the processes that the storm kills: "TEST daemon DIR", and the shims that this daemon starts.
func TestMain(m *testing.M) {
	hosttest.RunShim()
	if len(os.Args) == 3 && os.Args[1] == "daemon" {
		if err := stormDaemon(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(1)
		}
		syscall.Exit(0)
	}
	os.Exit(m.Run())
}

// stormDaemon runs the whole daemon with a VMM for tests.
func stormDaemon(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	agent := filepath.Join(dir, "agent")
	shimArgv = hosttest.ShimArgv(agent, filepath.Join(dir, "faults"))
	return run(ctx, Options{StateDir: filepath.Join(dir, "s"), RunDir: filepath.Join(dir, "r"), Socket: socketIn(dir),
		Accel: "tcg", Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Ready: func() { fmt.Println("ready") }},
		[]choice.VMM{hosttest.VMM(agent)})
}

func socketIn(dir string) string { return filepath.Join(dir, "r", "api.sock") }

// storm is a daemon that is killed repeatedly, together with its shims.
type storm struct {
	dir string
	api *client.Client

	mu     sync.Mutex
	up     chan struct{} // closed while the daemon answers
	daemon *exec.Cmd
	said   strings.Builder
	hurt   map[string]bool // ids of VMs that had a process killed
	broken []string        // faults found

	daemons, recovering, processes int           // how many were killed
	slowest                        time.Duration // duration of the slowest start
}

func newStorm(t *testing.T) *storm {
	t.Helper()
	dir, err := os.MkdirTemp("", "bst-")
	if err != nil {
		t.Fatal(err)
	}
	s := &storm{dir: dir, api: client.New(socketIn(dir)), up: make(chan struct{}), hurt: map[string]bool{}}
	t.Cleanup(func() {
		s.killDaemon()
		for _, pid := range hosttest.ProcessesOf(dir + "/") {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		s.await("all processes end", func() bool { return len(hosttest.ProcessesOf(dir+"/")) == 0 })
		os.RemoveAll(dir)
	})
	agent, err := embedded.ReadFile("embedded/agent-" + runtime.GOARCH)
	if err != nil {
		t.Fatalf("the agent is not built; run: make build (%v)", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "agent"), agent, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// stormUser is the user of the storm when root runs the test. VMs of root have users of their own. A real VMM gets
// its files as descriptors, but the VMM of this test opens them by name.
const stormUser = 54321

// asUser runs this test again as an ordinary user.
func asUser(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	for _, name := range []string{"BANGER_STORM", "BANGER_SEED"} {
		cmd.Env = append(cmd.Env, name+"="+os.Getenv(name))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stormUser, Gid: stormUser}}
	out, err := cmd.CombinedOutput()
	t.Logf("as user %d:\n%s", stormUser, out)
	if err != nil {
		t.Error(err)
	}
}

// fault records a violation.
func (s *storm) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = append(s.broken, fmt.Sprintf(format, args...))
}

// spawn starts a daemon. It returns a channel that is closed when the daemon answers or has ended.
func (s *storm) spawn() (answers <-chan bool) {
	cmd := exec.Command("/proc/self/exe", "daemon", s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	stderr, eerr := cmd.StderrPipe()
	if err == nil && eerr == nil {
		err = cmd.Start()
	}
	ready := make(chan bool, 1)
	if err != nil || eerr != nil {
		s.fault("a daemon cannot be started: %v, %v", err, eerr)
		ready <- false
		return ready
	}
	s.mu.Lock()
	s.daemon = cmd
	s.said.Reset()
	s.mu.Unlock()
	go func() { // ends with the daemon
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			s.mu.Lock()
			fmt.Fprintln(&s.said, lines.Text())
			s.mu.Unlock()
		}
	}()
	go func() { // ends with the daemon
		line, _ := bufio.NewReader(out).ReadString('\n')
		ready <- line == "ready\n"
		io.Copy(io.Discard, out)
	}()
	return ready
}

// start starts a daemon and waits until it answers.
func (s *storm) start() {
	began := time.Now()
	select {
	case ok := <-s.spawn():
		if !ok {
			s.mu.Lock()
			said := s.said.String()
			s.mu.Unlock()
			s.fault("the daemon does not start: %s", said)
		}
	case <-time.After(patience):
		s.fault("the daemon is not ready after %v", patience)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slowest = max(s.slowest, time.Since(began))
	close(s.up)
}

// killDaemon kills the daemon and waits for its end.
func (s *storm) killDaemon() {
	s.mu.Lock()
	cmd := s.daemon
	s.daemon = nil
	select {
	case <-s.up:
		s.up = make(chan struct{})
	default:
	}
	s.mu.Unlock()
	if cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// ready waits until the daemon answers.
func (s *storm) ready() {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	<-up
}

// blow kills processes until the time is over.
func (s *storm) blow(dice *rand.Rand, until time.Time) {
	pause := func(most time.Duration) { // the times of the kills are the test's input
		time.Sleep(time.Duration(dice.Int64N(int64(most))))
	}
	for time.Now().Before(until) {
		pause(800 * time.Millisecond)
		if dice.IntN(3) == 0 {
			s.killProcess(dice)
			continue
		}
		s.killDaemon()
		s.daemons++
		for dice.IntN(3) == 0 { // while it recovers
			s.spawn()
			if dice.IntN(2) == 0 {
				s.killProcess(dice)
			}
			pause(60 * time.Millisecond)
			s.killDaemon()
			s.recovering++
		}
		s.start()
	}
}

// killProcess kills a shim or its VMM.
func (s *storm) killProcess(dice *rand.Rand) {
	pids := hosttest.ProcessesOf(filepath.Join(s.dir, "s", "vms") + "/")
	if len(pids) == 0 {
		return
	}
	pid := pids[dice.IntN(len(pids))]
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return
	}
	id := filepath.Base(strings.TrimSuffix(string(cmdline), "\x00"))
	s.mu.Lock()
	s.hurt[id] = true
	s.mu.Unlock()
	s.processes++
	if children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err == nil && dice.IntN(2) == 0 {
		if list := strings.Fields(string(children)); len(list) > 0 {
			pid, _ = strconv.Atoi(list[0])
		}
	}
	syscall.Kill(pid, syscall.SIGKILL)
}

func (s *storm) isHurt(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hurt[id]
}

// await polls until so returns true, because no event announces it.
func (s *storm) await(what string, so func() bool) {
	for limit := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			s.fault("after %v it is not so that %s", patience, what)
			return
		}
	}
}
