//go:build bench

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/mux"
)

// The bounds of warm starts, emulated.
const (
	maxWarmRatio  = 0.20
	maxWarmMillis = 350
	maxBareWarm   = 2.0
	atOnce        = 20
	maxEach       = 0.4 // s, for each of the VMs that start at once
	maxWarmPSS    = 40  // MiB
)

// warm compares a whole call of run that starts from a template with one that boots, and with a bare QEMU that goes on
// from the same files. It starts many VMs at once, and measures the memory of an idle one.
func (b *bench) warm() {
	b.cli("daemon", "stop")
	first := b.command("run", "--rm", "-q", image, "true")
	first.Env = append(os.Environ(), "BANGER_TEMPLATES=now") // the daemon, which this call starts, makes them
	b.must(first.Run())
	for b.cli("warm", "ls", "-q") == "" {
		time.Sleep(100 * time.Millisecond) // no event tells that the host was idle
	}
	defer b.cli("daemon", "stop")
	rival := b.newBareTemplate()
	run := func(how string) func() {
		return func() { b.cli("run", "--rm", "-q", "--warm", how, image, "true") }
	}
	run("only")() // seals the memory
	var cold, warm, bare, ms []float64
	for i := range b.pairs {
		cold = append(cold, timed(run("never")).Seconds())
		warm = append(warm, timed(run("only")).Seconds())
		bare = append(bare, rival.restore().Seconds())
		ms = append(ms, warm[i]*1000)
		b.Logf("warm %d of %d: cold %.2f s, warm %.2f s, bare %.2f s", i+1, b.pairs, cold[i], warm[i], bare[i])
	}
	b.addPairs("run --rm from a template, beside a cold one", "s", warm, cold, maxWarmRatio, false)
	b.add("run --rm from a template", "ms", ms, maxWarmMillis)
	b.addPairs("run --rm from a template, beside a bare restore", "s", warm, bare, maxBareWarm, false)
	all := timed(func() {
		var wg sync.WaitGroup
		for range atOnce {
			wg.Go(run("only"))
		}
		wg.Wait()
	})
	b.add(fmt.Sprintf("%d of them at once", atOnce), "s", []float64{all.Seconds()}, atOnce*maxEach)
	b.warmPSS()
}

// warmPSS measures the memory of the VMM of an idle VM, as one of several from a template.
func (b *bench) warmPSS() {
	var vms []string
	for range 4 {
		vms = append(vms, strings.TrimSpace(b.cli("run", "-d", "-q", "--warm", "only", image)))
	}
	defer b.cli(append([]string{"rm", "-f"}, vms...)...)
	var mib []float64
	for _, vm := range vms {
		p := processes("banger-" + vm)
		if len(p) != 1 {
			b.Fatalf("%d processes are QEMU for %s", len(p), vm)
		}
		data, err := os.ReadFile(filepath.Join("/proc", p[0].pid, "smaps_rollup"))
		b.must(err)
		var kib float64
		for line := range strings.Lines(string(data)) {
			fmt.Sscanf(line, "Pss: %f kB", &kib)
		}
		mib = append(mib, kib/1024)
	}
	b.add("PSS of QEMU for an idle VM, one of four from a template", "MiB", mib, maxWarmPSS)
}

// bareTemplate is a QEMU without banger that goes on from the files of a template.
type bareTemplate struct {
	*bare
	template string // directory
}

func (b *bench) newBareTemplate() *bareTemplate {
	b.Helper()
	found, err := filepath.Glob(filepath.Join(b.state, "templates/ready/*"))
	b.must(err)
	if len(found) != 1 {
		b.Fatalf("the templates are %q", found)
	}
	r := &bareTemplate{b.newBare("user"), found[0]}
	r.disk = filepath.Join(r.template, "disk.ext4")
	if i := slices.Index(r.argv, "-sandbox"); i >= 0 { // it lets QEMU start no cat
		r.argv = slices.Delete(r.argv, i, i+2)
	}
	for i, a := range r.argv {
		if strings.HasPrefix(a, "memory-backend-file") {
			size := strings.Split(a, ",")[2]
			memory := filepath.Join(r.template, "snapshot.memory")
			r.argv[i] = "memory-backend-file,id=mem0," + size + ",share=off,mem-path=" + memory
		}
		if strings.HasPrefix(a, "stream,id=net0") { // nobody is at the other end of its socket
			r.argv[i] = "user,id=net0"
		}
	}
	if !slices.Contains(r.argv, "-incoming") { // of a VM that has booted
		r.argv = append(r.argv, "-S", "-incoming", "defer", "-global", "migration.send-configuration=off")
	}
	r.argv = append(r.argv, "-qmp", "unix:"+filepath.Join(r.dir, "qmp.sock")+",server=on,wait=off")
	return r
}

// restore returns how long it took until the agent had answered.
func (r *bareTemplate) restore() time.Duration {
	r.Helper()
	r.must(os.Mkdir(r.dir, 0o700))
	defer os.RemoveAll(r.dir)
	r.must(exec.Command("cp", "--sparse=always", r.disk, filepath.Join(r.dir, "disk.ext4")).Run())
	r.must(os.Chmod(filepath.Join(r.dir, "disk.ext4"), 0o600))
	cmd := exec.Command(r.argv[0], r.argv[1:]...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the parent-death signal is bound to the thread
	defer runtime.UnlockOSThread()
	start := time.Now()
	r.must(cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	monitor := r.dial("qmp.sock")
	defer monitor.Close()
	lines := bufio.NewReader(monitor)
	r.say(monitor, lines, `{"execute":"qmp_capabilities"}`)
	r.say(monitor, lines, fmt.Sprintf(`{"execute":"migrate-incoming","arguments":{"uri":"exec:cat %s"}}`,
		filepath.Join(r.template, "snapshot.state")))
	for !strings.Contains(r.say(monitor, lines, `{"execute":"query-migrate"}`), `"completed"`) {
		time.Sleep(time.Millisecond)
	}
	r.say(monitor, lines, `{"execute":"cont"}`)
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	m, err := mux.Connect(ctx, r.dial("channel.sock"))
	r.must(err)
	defer m.Close()
	c := guest.Client{Dial: func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx, guest.AgentPort) }}
	_, err = c.Configure(ctx, guest.Config{Hostname: "bare", Seed: []byte(strings.Repeat("x", guest.MinSeed))})
	r.must(err)
	conn, err := c.Exec(ctx, banger.Exec{Args: []string{"true"}})
	r.must(err)
	defer conn.Close()
	r.must(finish(conn))
	return time.Since(start)
}

// say executes a command of QEMU's monitor and returns the answer.
func (r *bareTemplate) say(w io.Writer, lines *bufio.Reader, command string) string {
	r.Helper()
	_, err := fmt.Fprintln(w, command)
	r.must(err)
	for {
		line, err := lines.ReadBytes('\n')
		r.must(err)
		var answer struct {
			Return json.RawMessage
			Error  json.RawMessage
		}
		r.must(json.Unmarshal(line, &answer))
		if answer.Error != nil {
			r.Fatalf("QEMU answers %s with %s", command, line)
		}
		if answer.Return != nil {
			return string(line)
		}
	}
}
