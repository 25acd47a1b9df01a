package vmmtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/mux"
	"banger/internal/vmm"
)

// patience is the time limit of every wait. Only a failing wait comes near it.
const patience = 90 * time.Second

// Run tests what every driver must do. config returns a Config with its own paths, whose guest runs
// the agent and has a /bin/echo. Nothing else may change the directory of Dir. No other test may
// run at the same time.
func Run(t *testing.T, d vmm.Driver, config func(t *testing.T) vmm.Config) {
	Life(t, d, config)
	t.Run("two at once do not disturb each other", func(t *testing.T) { two(t, d, config(t), config(t)) })
	t.Run("a start that fails leaves nothing", func(t *testing.T) { failedStarts(t, d, config) })
	t.Run("many commands", func(t *testing.T) { manyExecs(t, d, config(t)) })
	t.Run("it has a name and a version", func(t *testing.T) {
		if v, err := d.Version(t.Context()); err != nil || v == "" || d.Name() == "" {
			t.Errorf("%q calls itself %q, %v", d.Name(), v, err)
		}
	})
}

// Life tests the part of Run in which versions of a VMM differ most: a boot, a pause, a snapshot, a
// restore and two ends.
func Life(t *testing.T, d vmm.Driver, config func(t *testing.T) vmm.Config) {
	t.Run("a whole life", func(t *testing.T) { wholeLife(t, d, config(t)) })
	t.Run("it is written down and goes on", func(t *testing.T) { snapshots(t, d, config(t)) })
	t.Run("two start from one template", func(t *testing.T) { templates(t, d, config, false) })
	t.Run("two start from one template with a disk", func(t *testing.T) { templates(t, d, config, true) })
}

// wholeLife tests a VM from its boot to its own power-off.
func wholeLife(t *testing.T, d vmm.Driver, c vmm.Config) {
	clean := traces(t, c)
	vm := Start(t, d, c)
	if info, err := vm.Agent.Configure(ctx(t), guest.Config{Hostname: "conformance"}); err != nil ||
		info.Version != guest.Version {
		t.Fatalf("the agent answers %+v, %v", info, err)
	}
	if !vm.Handle().Alive() {
		t.Error("its process is not alive")
	}
	if err := vm.Agent.Start(ctx(t), banger.Exec{
		Args: []string{"/bin/echo", "what", "is", "printed"},
		Main: true,
	}); err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := vm.Agent.Output(ctx(t), 0, func(r guest.Record) { printed.Write(r.Data) }); err != nil ||
		printed.String() != "what is printed\n" {
		t.Errorf("the main command has written %q, %v", &printed, err)
	}
	before := stats(t, vm)
	pauseAndResume(t, vm)
	if after := stats(t, vm); after.DiskRead < before.DiskRead || after.DiskWritten < before.DiskWritten {
		t.Errorf("its stats were %+v, and are %+v", before, after)
	}
	vm.reopen(t)
	if _, err := vm.Agent.Ping(ctx(t)); err != nil {
		t.Errorf("over a new channel the agent does not answer: %v", err)
	}
	if err := vm.Agent.Shutdown(ctx(t), time.Second); err != nil {
		t.Fatal(err)
	}
	exit := vm.AwaitEnd(t)
	if exit.Code != 0 || exit.Signal != 0 || exit.Panic || !strings.Contains(exit.Reason, "powered off") {
		t.Errorf("a clean power-off is told as %+v", exit)
	}
	wantEnded(t, vm)
	wantTraces(t, c, clean)
}

func stats(t *testing.T, vm *VM) vmm.Stats {
	t.Helper()
	s, err := vm.Stats(ctx(t))
	if err != nil {
		t.Fatalf("Stats: %v", err)
	}
	return s
}

// pauseAndResume checks that a paused VM does not answer and loses nothing, not even an open
// stream. Pausing twice and resuming twice is allowed.
func pauseAndResume(t *testing.T, vm *VM) {
	t.Helper()
	stream, err := vm.Agent.Exec(ctx(t), banger.Exec{Args: []string{"/bin/cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for range 2 {
		if err := vm.Pause(ctx(t)); err != nil {
			t.Fatalf("Pause: %v", err)
		}
	}
	wantSilent(t, vm)
	if !vm.Handle().Alive() {
		t.Error("a paused VM is not alive")
	}
	start := time.Now()
	if stats(t, vm); time.Since(start) > 5*time.Second {
		t.Errorf("the stats of a paused VM take %s", time.Since(start))
	}
	for range 2 {
		if err := vm.Resume(ctx(t)); err != nil {
			t.Fatalf("Resume: %v", err)
		}
	}
	if _, err := vm.Agent.Ping(ctx(t)); err != nil {
		t.Errorf("after Resume the agent does not answer: %v", err)
	}
	stream.SetDeadline(time.Now().Add(patience))
	if err := feed(stream, []byte("through a pause")); err != nil {
		t.Error(err)
	}
	if out, err := gather(stream); out != "through a pause" || err != nil {
		t.Errorf("a stream that was open before the pause says %q, %v", out, err)
	}
}

// wantSilent checks that the guest of a paused VM does not answer.
func wantSilent(t *testing.T, vm *VM) {
	t.Helper()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := vm.Agent.Ping(short); err == nil {
		t.Error("the agent of a paused guest answers")
	}
}

// two starts two VMs, kills one while the other runs, and kills the other while it is paused.
func two(t *testing.T, d vmm.Driver, first, second vmm.Config) {
	before := [][]string{traces(t, first), traces(t, second)}
	a, b := Start(t, d, first), Start(t, d, second)
	if a.Handle() == b.Handle() {
		t.Fatalf("both are process %+v", a.Handle())
	}
	for _, vm := range []*VM{a, b} {
		if _, err := vm.Agent.Configure(ctx(t), guest.Config{Hostname: "one-of-two"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Kill(); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	wantKilled(t, a)
	if _, err := b.Agent.Ping(ctx(t)); err != nil || !b.Handle().Alive() {
		t.Errorf("when the first was killed, the second stopped answering: %v", err)
	}
	if err := b.Pause(ctx(t)); err != nil {
		t.Fatalf("Pause: %v", err)
	}
	if err := b.Kill(); err != nil {
		t.Fatalf("Kill while paused: %v", err)
	}
	wantKilled(t, b)
	wantTraces(t, second, before[1])
	wantTraces(t, first, before[0])
}

func wantKilled(t *testing.T, vm *VM) {
	t.Helper()
	exit := vm.AwaitEnd(t)
	if exit.Signal != int(syscall.SIGKILL) || exit.Panic || !strings.Contains(exit.Reason, "killed") {
		t.Errorf("a kill is told as %+v", exit)
	}
	wantEnded(t, vm)
}

// wantEnded checks what must be true of every VM that has ended.
func wantEnded(t *testing.T, vm *VM) {
	t.Helper()
	if vm.Handle().Alive() {
		t.Error("it has ended and its process is alive")
	}
	if err := vm.Kill(); err != nil {
		t.Errorf("a Kill after the end: %v", err)
	}
	if err := vm.Pause(ctx(t)); err == nil {
		t.Error("what has ended can be paused")
	}
	if _, err := vm.Stats(ctx(t)); err == nil {
		t.Error("what has ended has stats")
	}
}

func failedStarts(t *testing.T, d vmm.Driver, config func(*testing.T) vmm.Config) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, f := range map[string]struct {
		ctx   context.Context
		spoil func(*vmm.Config)
	}{
		"the context is canceled": {canceled, func(*vmm.Config) {}},
		"there is no kernel":      {ctx(t), func(c *vmm.Config) { c.Kernel += ".missing" }},
		"there is no initrd":      {ctx(t), func(c *vmm.Config) { c.Initrd += ".missing" }},
		"there is no such drive":  {ctx(t), func(c *vmm.Config) { c.Drives[0].Path += ".missing" }},
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t)
			f.spoil(&c)
			before := traces(t, c)
			p, err := d.Start(f.ctx, c, io.Discard)
			if err == nil {
				p.Kill()
				<-p.Done()
				t.Fatal("it starts all the same")
			}
			if strings.TrimSpace(err.Error()) == "" || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %q, not one sentence", err)
			}
			wantTraces(t, c, before)
		})
	}
}

// traces lists what a driver may have left: children of this process, and files.
func traces(t *testing.T, c vmm.Config) []string {
	t.Helper()
	var list []string
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(children) == 0 {
		t.Fatalf("no list of child processes: %v", err)
	}
	for _, path := range children {
		pids, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			list = append(list, "process "+pid)
		}
	}
	filepath.WalkDir(filepath.Dir(c.Dir), func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			list = append(list, path)
		}
		return nil
	})
	slices.Sort(list)
	return list
}

func wantTraces(t *testing.T, c vmm.Config, want []string) {
	t.Helper()
	if got := traces(t, c); !slices.Equal(got, want) {
		t.Errorf("it leaves\n%q\nwhere there was\n%q", got, want)
	}
}

// VM is a process and a client of the agent in it.
type VM struct {
	vmm.Process
	Agent   guest.Client
	Console *Console

	mux *mux.Mux // of a Channeler
}

// Start starts a VM that ends with the test, and connects to its agent.
func Start(t *testing.T, d vmm.Driver, c vmm.Config) *VM {
	t.Helper()
	console := NewConsole()
	p, err := d.Start(ctx(t), c, console)
	if err != nil {
		t.Fatal(err)
	}
	vm := &VM{Process: p, Console: console}
	t.Cleanup(func() {
		if t.Failed() {
			explain(t, c.ID, p, console)
		}
		if vm.mux != nil {
			vm.mux.Close()
		}
		p.Kill()
		vm.AwaitEnd(t)
	})
	if dialer, ok := p.(vmm.Dialer); ok {
		vm.Agent.Dial = func(ctx context.Context) (net.Conn, error) { return dialer.Dial(ctx, guest.AgentPort) }
		return vm
	}
	vm.Agent.Dial = func(ctx context.Context) (net.Conn, error) { return vm.mux.Dial(ctx, guest.AgentPort) }
	vm.reopen(t)
	return vm
}

// reopen makes a new session over a newly opened channel, if the driver has channels.
func (vm *VM) reopen(t *testing.T) {
	t.Helper()
	ch, ok := vm.Process.(vmm.Channeler)
	if !ok {
		return
	}
	if vm.mux != nil {
		vm.mux.Close()
	}
	vm.agree(t, Open(t, ch))
}

// agree makes a session over a channel.
func (vm *VM) agree(t *testing.T, conn net.Conn) {
	t.Helper()
	if conn == nil {
		t.FailNow() // Open has reported the reason
	}
	var err error
	if vm.mux, err = mux.Connect(ctx(t), conn); err != nil {
		t.Fatalf("the agent does not answer on the channel: %v", err)
	}
}

// ReopenPaused makes a new session over a channel that is opened while the guest is paused.
func (vm *VM) ReopenPaused(t *testing.T) {
	t.Helper()
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	vm.mux.Close()
	opened := make(chan net.Conn, 1)
	go func() { opened <- Open(t, vm.Process.(vmm.Channeler)) }()
	if err := vm.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	vm.agree(t, <-opened)
}

// Open opens the agent's channel.
func Open(t *testing.T, ch vmm.Channeler) net.Conn {
	t.Helper()
	conn, err := ch.OpenChannel(ctx(t))
	if err != nil {
		t.Errorf("OpenChannel: %v", err)
	}
	return conn
}

// AwaitEnd waits until the VM has ended and returns how it ended.
func (vm *VM) AwaitEnd(t *testing.T) vmm.Exit {
	t.Helper()
	select {
	case <-vm.Done():
		return vm.Exit()
	case <-time.After(patience):
		t.Fatal("the VM does not end")
		return vmm.Exit{}
	}
}

func ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// Console keeps what a guest prints.
type Console struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed and replaced at each write
}

// NewConsole returns an empty console.
func NewConsole() *Console { return &Console{grown: make(chan struct{})} }

// Write appends p to the output.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.grown)
	c.grown = make(chan struct{})
	return c.text.Write(p)
}

// String returns all that was printed.
func (c *Console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// Await waits until text has been printed.
func (c *Console) Await(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for {
		c.mu.Lock()
		got, grown := c.text.String(), c.grown
		c.mu.Unlock()
		if strings.Contains(got, text) {
			return
		}
		select {
		case <-grown:
		case <-late:
			t.Fatalf("%q does not appear on the console, but\n%s", text, got)
		}
	}
}

// Dir returns an empty directory with a short path, because the path of a socket must be short.
func Dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(fmt.Errorf("removing a test's directory: %w", err))
		}
	})
	return dir
}
