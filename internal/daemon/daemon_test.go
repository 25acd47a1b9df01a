package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/api/wire"
	"banger/internal/host"
	"banger/internal/store"
	"banger/internal/testing/hosttest"
	"banger/internal/vmm/choice"
)

// home is the directories of a daemon that runs in this process.
type home struct {
	t   *testing.T
	dir string
	o   Options
	api *client.Client
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := os.MkdirTemp("", "bd-") // shorter than t.TempDir: a socket's path has 108 bytes
	hosttest.Check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	agent, err := embedded.ReadFile("embedded/agent-" + runtime.GOARCH)
	if err != nil {
		t.Fatalf("the agent is not built; run: make build (%v)", err)
	}
	hosttest.Check(t, os.WriteFile(filepath.Join(dir, "agent"), agent, 0o755))
	h := &home{t: t, dir: dir, api: client.New(socketIn(dir))}
	h.o = Options{
		StateDir: filepath.Join(dir, "s"),
		RunDir:   filepath.Join(dir, "r"),
		Socket:   socketIn(dir),
		Accel:    "tcg",
		Log:      slog.New(slog.DiscardHandler),
	}
	return h
}

// start runs a daemon until the returned function is called, which returns the daemon's error. If the daemon does not
// start, start returns its error.
func (h *home) start() (stop func() error, err error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	o := h.o
	o.Ready = func() { close(ready) }
	go func() { ended <- run(ctx, o, []choice.VMM{hosttest.VMM(filepath.Join(h.dir, "agent"))}) }()
	select {
	case <-ready:
		return func() error {
			cancel()
			return <-ended
		}, nil
	case err := <-ended:
		cancel()
		return nil, err
	case <-time.After(patience):
		h.t.Fatal("the daemon does not get ready")
		return nil, nil
	}
}

// mustStart is start for a daemon that starts.
func (h *home) mustStart() (stop func() error) {
	h.t.Helper()
	stop, err := h.start()
	hosttest.Check(h.t, err)
	return stop
}

// create makes a VM that does not run. It brings a kernel and an image first.
func (h *home) create(name string) banger.VM {
	h.t.Helper()
	ctx, modules := h.t.Context(), filepath.Join(h.dir, "lib/modules/6.1.0-test")
	hosttest.Check(h.t, os.MkdirAll(modules, 0o755))
	for _, name := range []string{"modules.dep.bin", "unused.ko"} {
		hosttest.Check(h.t, os.WriteFile(filepath.Join(modules, name), []byte("text"), 0o644))
	}
	if list, err := h.api.Kernels(ctx); err != nil || len(list) == 0 {
		_, err := h.api.ImportKernel(ctx, "test", filepath.Join(h.dir, "agent"), modules, banger.Discard)
		hosttest.Check(h.t, err)
	}
	layout := filepath.Join(h.dir, "oci")
	if _, err := os.Stat(layout); err != nil {
		hosttest.WriteLayout(h.t, layout, hosttest.FakeImage(h.t))
	}
	spec := banger.Spec{Name: name, Image: "oci:" + layout, Disk: banger.MinDisk}
	vm, err := h.api.Create(ctx, spec, nil, false, banger.Discard)
	hosttest.Check(h.t, err)
	return vm
}

// TestADaemonStartsAndEnds checks what a daemon says of itself, and that its successor has the same VMs and the same
// port for names.
func TestADaemonStartsAndEnds(t *testing.T) {
	h := newHome(t)
	stop := h.mustStart()
	v, err := h.api.Version(t.Context())
	hosttest.Check(t, err)
	if v.Version != banger.Version || v.PID != os.Getpid() || v.State != h.o.StateDir || v.SQLite == "" ||
		v.VMM != "memory 1.0" || v.KVM != "switched off by BANGER_ACCEL" || len(v.VMMs) != 1 || v.DNS == "" {
		t.Errorf("it says %+v", v)
	}
	if _, err := h.start(); banger.CodeOf(err) != banger.CodeConflict ||
		!strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	box := h.create("box")
	hosttest.Check(t, stop())
	if _, err := h.api.Version(t.Context()); banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("after its end it answers %v", err)
	}
	stop = h.mustStart()
	next, err := h.api.Version(t.Context())
	hosttest.Check(t, err)
	if next.DNS != v.DNS {
		t.Errorf("the port for names was %s and is %s", v.DNS, next.DNS)
	}
	if got, err := h.api.Get(t.Context(), "box"); err != nil || got.ID != box.ID {
		t.Errorf("the VM is %+v, %v", got, err)
	}
	if _, err := os.Stat(copyPath(h.o.StateDir, 0)); err != nil {
		t.Errorf("there is no copy of the database: %v", err)
	}
	hosttest.Check(t, stop())
}

// TestAClientEndsADaemon checks that a shutdown ends the daemon.
func TestAClientEndsADaemon(t *testing.T) {
	h := newHome(t)
	stop := h.mustStart()
	if _, err := h.api.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	hosttest.Check(t, stop())
}

// TestADaemonThatCannotStart checks the error for each thing that a daemon needs.
func TestADaemonThatCannotStart(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(h *home)
		code  banger.Code
		words string
	}{
		"its directory is a file": {func(h *home) { os.WriteFile(h.o.StateDir, nil, 0o600) }, banger.CodeInvalid,
			"is not a directory"},
		"the database is damaged": {func(h *home) {
			os.MkdirAll(h.o.StateDir, 0o700)
			os.WriteFile(databasePath(h.o.StateDir), []byte(strings.Repeat("no database ", 1000)), 0o600)
		}, banger.CodeDisk, "the database cannot be used, and nothing was changed"},
		"a limit is no number": {func(h *home) { h.t.Setenv("BANGER_IMAGE_RATIO", "many") }, banger.CodeInvalid,
			`BANGER_IMAGE_RATIO is "many", not a positive number`},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			c.spoil(h)
			if _, err := h.start(); banger.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.words) {
				t.Errorf("it is %v (%s)", err, banger.CodeOf(err))
			}
		})
	}
}

// TestRecoverTakesTheLastGoodCopy damages the database of a daemon with VMs. The rows come back from the copy and from
// the records beside the VMs.
func TestRecoverTakesTheLastGoodCopy(t *testing.T) {
	h := newHome(t)
	stop := h.mustStart()
	box := h.create("box")
	hosttest.Check(t, stop())
	stop = h.mustStart() // makes the copy
	late := h.create("late")
	hosttest.Check(t, stop())
	var report strings.Builder
	hosttest.Check(t, Recover(t.Context(), h.o, &report))
	if report.String() != "each VM has its row\n" {
		t.Errorf("it says %q", &report)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		os.Remove(databasePath(h.o.StateDir) + suffix)
	}
	hosttest.Check(t, os.WriteFile(databasePath(h.o.StateDir), []byte(strings.Repeat("damage ", 1000)), 0o600))
	report.Reset()
	hosttest.Check(t, Recover(t.Context(), h.o, &report))
	for _, want := range []string{"the database that was there is ",
		"the copy " + copyPath(h.o.StateDir, 0) + " takes its place\n",
		"VM late (" + late.ID + ") has its row again\n"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("it says %q, without %q", &report, want)
		}
	}
	defer h.mustStart()()
	for _, vm := range []banger.VM{box, late} {
		if got, err := h.api.Get(t.Context(), vm.Name); err != nil || got.ID != vm.ID {
			t.Errorf("%s is %+v, %v", vm.Name, got, err)
		}
	}
}

// TestCopiesOfTheDatabase checks that only a changed database makes a copy, and how many copies are kept.
func TestCopiesOfTheDatabase(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(t.Context(), databasePath(dir))
	hosttest.Check(t, err)
	defer db.Close()
	for i := range copies + 2 {
		_, err := db.Create(t.Context(), banger.VM{ID: fmt.Sprint("id", i), Name: fmt.Sprint("vm", i)})
		hosttest.Check(t, err)
		hosttest.Check(t, keepCopy(t.Context(), db, dir))
		hosttest.Check(t, keepCopy(t.Context(), db, dir))
	}
	for n := range copies {
		if rows, err := rowsIn(t.Context(), copyPath(dir, n)); err != nil || rows != copies+2-n {
			t.Errorf("copy %d has %d rows, %v", n, rows, err)
		}
	}
	if found, _ := filepath.Glob(copyPath(dir, 0)[:len(copyPath(dir, 0))-1] + "*"); len(found) != copies {
		t.Errorf("there are %q", found)
	}
}

// TestTheHostsSwitches checks how variables and options decide about KVM, limits and Firecracker.
func TestTheHostsSwitches(t *testing.T) {
	if kvm := probe(Options{Accel: "kvm"}); !kvm.Usable {
		t.Errorf("with kvm it is %+v", kvm)
	}
	if kvm := probe(Options{Accel: "tcg"}); kvm.Usable {
		t.Errorf("with tcg it is %+v", kvm)
	}
	env := map[string]string{"BANGER_IMAGE_SIZE": "2g", "BANGER_IMAGE_ENTRIES": "7", "BANGER_IMAGE_RATIO": "9"}
	limits, err := imageLimits(func(name string) string { return env[name] })
	if err != nil || limits.Bytes != 2<<30 || limits.Entries != 7 || limits.Ratio != 9 {
		t.Errorf("the limits are %+v, %v", limits, err)
	}
	if _, err := imageLimits(func(string) string { return "-1" }); err == nil {
		t.Error("negative limits are taken")
	}
	all, err := vmms(func(string) string { return "cpu_template=/t,a=b" })
	if err != nil || len(all) != 2 || all[0].Name != banger.VMMFirecracker || all[0].Reads[0] != "/t" ||
		all[0].Options["a"] != "b" || all[1].Name != banger.VMMQEMU {
		t.Errorf("the VMMs are %+v, %v", all, err)
	}
	for _, text := range []string{"x", "=y"} {
		if _, err := vmms(func(string) string { return text }); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: %v", text, err)
		}
	}
	if len(drivers()) != 2 {
		t.Errorf("the drivers are %v", drivers())
	}
}

// TestAVersionIsAskedForOnce, until the program's file changes.
func TestAVersionIsAskedForOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	hosttest.Check(t, os.WriteFile(path, []byte("one"), 0o700))
	var r remembered
	asked := 0
	ask := func() (string, error) { asked++; return fmt.Sprint("v", asked), nil }
	for _, want := range []string{"v1", "v1"} {
		if got, err := r.version(path, ask); got != want || err != nil {
			t.Errorf("it is %s, %v", got, err)
		}
	}
	hosttest.Check(t, os.WriteFile(path, []byte("another"), 0o700))
	if got, err := r.version(path, ask); got != "v2" || err != nil {
		t.Errorf("it is %s, %v", got, err)
	}
	hosttest.Check(t, os.WriteFile(path, []byte("a broken one"), 0o700))
	broken := errors.New("it crashes")
	if _, err := r.version(path, func() (string, error) { return "", broken }); !errors.Is(err, broken) {
		t.Errorf("it is %v", err)
	}
	if got, err := r.version(path, ask); got != "v3" || err != nil {
		t.Errorf("after an error it is %s, %v", got, err)
	}
	if _, err := r.version("/no/such", ask); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the program it is %v", err)
	}
}

// TestWhatIsSaidOfVMMs describes VMMs that can be used and such that cannot.
func TestWhatIsSaidOfVMMs(t *testing.T) {
	find := func(path string, err error) func(context.Context) (string, string, error) {
		return func(context.Context) (string, string, error) { return path, "1.0", err }
	}
	missing := errors.New("it is not installed")
	absent := choice.VMM{Name: "absent", Find: find("", missing), Package: "apt-get install it"}
	needy := choice.VMM{Name: "needy", Find: find("/bin/sh", nil), NeedsKVM: true}
	fine := choice.VMM{Name: "fine", Find: find("/bin/sh", nil)}
	noKVM := host.KVM{Reason: "there is no /dev/kvm"}
	say := func(kvm host.KVM, vmms ...choice.VMM) (string, []wire.VMM) {
		return describe(t.Context(), vmms, kvm, t.TempDir())
	}
	first, all := say(noKVM, absent, needy, fine)
	if first != "fine 1.0" || all[0].Problem != "it is not installed" || all[0].Fix != "apt-get install it" ||
		all[1].Problem != "it needs KVM: there is no /dev/kvm" || all[2].Problem != "" {
		t.Errorf("it says %s, %+v", first, all)
	}
	if first, _ := say(noKVM, needy, absent); first != "it is not installed" {
		t.Errorf("without any it says %s", first)
	}
	if first, _ := say(host.KVM{Usable: true}, needy); first != "needy 1.0" {
		t.Errorf("with KVM it says %s", first)
	}
	if _, problem := describeGroups(nil, errors.New("no delegation")); problem != "no delegation" {
		t.Errorf("the problem is %s", problem)
	}
}

// nobody is a directory without VMs.
type nobody struct{}

func (nobody) Address(string, string) (netip.Addr, bool)     { return netip.Addr{}, false }
func (nobody) HasNetwork(string) bool                        { return false }
func (nobody) Name(netip.Addr) (vm, network string, ok bool) { return "", "", false }

// TestThePortForNames checks which port a daemon takes if another program has the usual one.
func TestThePortForNames(t *testing.T) {
	dir, address, problem := "", "", "none was tried"
	for range 20 { // other programs of this host may have some of these ports
		if problem == "" {
			break
		}
		dir = t.TempDir()
		n := serveNames(dir, nobody{})
		address, problem = n.version()
		n.close()
	}
	usual := namePortsOf(dir)[0]
	if address != fmt.Sprintf("127.0.0.1:%d", usual) || namePortsOf(dir)[1] != usual {
		t.Fatalf("it is %s (%s), and the next daemon tries %d first", address, problem, usual)
	}
	other, err := net.ListenPacket("udp4", address)
	hosttest.Check(t, err)
	defer other.Close()
	n := serveNames(dir, nobody{})
	defer n.close()
	got, problem := n.version()
	want := fmt.Sprintf("port %d of 127.0.0.1, where it should be, is taken", usual)
	if got == address || got == "" || problem != want {
		t.Errorf("it is %s, %s", got, problem)
	}
}
