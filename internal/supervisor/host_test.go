package supervisor_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"banger"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/shim"
	"banger/internal/shim/server"
	"banger/internal/store"
	"banger/internal/supervisor"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// patience bounds every wait. Only a failing wait takes nearly as long.
const patience = 60 * time.Second

var agent string // path of the guest agent's binary

// TestMain also runs the shims, which the supervisor starts as "TEST shim AGENT FAULTS DIR".
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "shim" {
		driver := vmmtest.Memory{Agent: os.Args[2], Fault: func(vmm.Config) vmmtest.Fault { return takeFault(os.Args[3]) }}
		err := server.Run(context.Background(), map[string]vmm.Driver{driver.Name(): driver})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		syscall.Exit(0) // os.Exit would take one second longer in the race detector
	}
	dir, err := os.MkdirTemp("", "supervisor")
	if err != nil {
		panic(err)
	}
	agent = filepath.Join(dir, "agent")
	if out, err := exec.Command("go", "build", "-o", agent, "banger/cmd/banger-agent").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// takeFault returns the first fault in dir and removes it there.
func takeFault(dir string) vmmtest.Fault {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return vmmtest.NoFault
	}
	name := entries[0].Name()
	if os.Remove(filepath.Join(dir, name)) != nil {
		return vmmtest.NoFault
	}
	_, fault, _ := strings.Cut(name, " ")
	return vmmtest.Fault(fault)
}

// host is a machine with an image, a kernel and a daemon's directories, on which supervisors run one after another.
type host struct {
	t     *testing.T
	dir   string
	opts  supervisor.Options
	image string // reference of the only image
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "bh")
	check(t, err)
	h := &host{t: t, dir: dir}
	t.Cleanup(func() {
		h.await("all its processes end", func() bool { return len(h.processes()) == 0 })
		check(t, os.RemoveAll(dir))
	})
	check(t, os.Mkdir(h.path("faults"), 0o700))
	check(t, os.Link(agent, h.path("agent"))) // this path identifies the processes of this host
	self, err := os.Executable()
	check(t, err)
	images, err := image.Open(h.path("images"), image.Options{})
	check(t, err)
	kernels, err := kernel.Open(h.path("kernels"))
	check(t, err)
	h.opts = supervisor.Options{StateDir: h.path("state"), RunDir: h.path("run"), Agent: []byte("a guest agent"),
		ShimArgv: []string{self, "shim", h.path("agent"), h.path("faults")}, Images: images, Kernels: kernels,
		VMMs: choice.Host{VMMs: []choice.VMM{{Name: "memory", Find: finder(vmmtest.Memory{Agent: agent})}}}}
	h.addImage()
	h.addKernel()
	h.opts.Store, err = store.Open(t.Context(), h.path("banger.db"))
	check(t, err)
	t.Cleanup(func() { h.opts.Store.Close() })
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// fakeImage returns an image without files, whose command is a bare shell.
func (h *host) fakeImage() v1.Image {
	h.t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
		Config: v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"FROM=image", "BOTH=image"}}})
	check(h.t, err)
	return img
}

// addImage installs the fake image.
func (h *host) addImage() {
	h.t.Helper()
	at, err := layout.Write(h.path("oci"), empty.Index)
	check(h.t, err)
	check(h.t, at.AppendImage(h.fakeImage()))
	h.image = "oci:" + h.path("oci")
	_, err = h.opts.Images.Ensure(h.t.Context(), h.image, "", banger.PullMissing, banger.Discard)
	check(h.t, err)
}

// addKernel installs a kernel of made-up files. Any ELF file can be a kernel image.
func (h *host) addKernel() {
	h.t.Helper()
	modules := h.path("lib/modules/6.1.0-test")
	check(h.t, os.MkdirAll(modules, 0o755))
	check(h.t, os.WriteFile(filepath.Join(modules, "modules.dep.bin"), []byte("index"), 0o644))
	check(h.t, os.WriteFile(filepath.Join(modules, "unused.ko"), []byte("module"), 0o644))
	_, err := h.opts.Kernels.Import(h.t.Context(), "test", agent, modules, "a test", banger.Discard)
	check(h.t, err)
}

// daemon starts a supervisor of the host. The VMs outlive it.
func (h *host) daemon() *supervisor.Supervisor {
	h.t.Helper()
	s, err := supervisor.New(h.opts)
	check(h.t, err)
	check(h.t, s.Restore(h.t.Context()))
	h.t.Cleanup(s.Close)
	h.t.Cleanup(func() { // closes the last supervisor; the earlier ones are closed
		for _, vm := range s.List(func(banger.VM) bool { return true }) {
			s.Remove(context.Background(), vm.ID, true)
		}
	})
	return s
}

// fault makes each of the next starts fail with one of the faults.
func (h *host) fault(faults ...vmmtest.Fault) {
	h.t.Helper()
	for i, f := range faults {
		check(h.t, os.WriteFile(filepath.Join(h.path("faults"), fmt.Sprintf("%d %s", i, f)), nil, 0o600))
	}
}

// processes lists the running shims and VMMs of this host.
func (h *host) processes() (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		cmdline, err := os.ReadFile(path) // a zombie has no command line
		if err == nil && bytes.Contains(cmdline, []byte(h.dir+"/")) {
			var pid int
			fmt.Sscanf(path, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// files lists the files of VMs in the daemon's directories.
func (h *host) files() (list []string) {
	for _, dir := range []string{h.path("state/vms"), h.path("run/vms")} {
		filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != dir {
				list = append(list, path)
			}
			return nil
		})
	}
	return list
}

// wantNothing checks that no VM has left a row, a file or a process.
func (h *host) wantNothing(s *supervisor.Supervisor) {
	h.t.Helper()
	if list := s.List(func(banger.VM) bool { return true }); len(list) != 0 {
		h.t.Errorf("there are VMs: %+v", list)
	}
	rows, err := h.opts.Store.List(h.t.Context())
	if err != nil || len(rows) != 0 {
		h.t.Errorf("there are rows: %+v, %v", rows, err)
	}
	if files := h.files(); len(files) != 0 {
		h.t.Errorf("there are files: %q", files)
	}
	h.await("no process is left", func() bool { return len(h.processes()) == 0 })
}

// row returns the stored VM.
func (h *host) row(id string) banger.VM {
	h.t.Helper()
	rows, err := h.opts.Store.List(h.t.Context())
	check(h.t, err)
	i := slices.IndexFunc(rows, func(r store.Row) bool { return r.VM.ID == id })
	if i < 0 || !rows[i].Committed {
		h.t.Fatalf("VM %s is not among the committed of %+v", id, rows)
	}
	return rows[i].VM
}

// shim returns a client of a VM's shim.
func (h *host) shim(id string) shim.Client {
	return shim.Client{Dir: h.path("state/vms/" + id), Run: h.path("run/vms/" + id)}
}

// status returns the status of a VM's shim.
func (h *host) status(id string) shim.Status {
	h.t.Helper()
	st, err := h.shim(id).Status(h.t.Context())
	check(h.t, err)
	return st
}

// await polls until ok returns true, for conditions without an event, such as those of another process.
func (h *host) await(what string, ok func() bool) {
	h.t.Helper()
	for late := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			h.t.Fatalf("this does not happen: %s (processes %v)", what, h.processes())
		}
	}
}

// spec returns a small VM that waits for commands.
func (h *host) spec(name string) banger.Spec {
	return banger.Spec{Name: name, Image: h.image, Disk: banger.MinDisk, Pull: banger.PullNever}
}

// command returns a VM whose main command is a shell script.
func (h *host) command(name, script string) banger.Spec {
	spec := h.spec(name)
	spec.Cmd = []string{"/bin/sh", "-c", script}
	return spec
}

// run creates and starts a VM.
func (h *host) run(s *supervisor.Supervisor, spec banger.Spec) banger.VM {
	h.t.Helper()
	vm, err := s.Create(h.ctx(), spec, true, banger.Discard)
	check(h.t, err)
	return vm
}

func (h *host) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

// sh runs a script in a VM and returns what it prints and its exit code.
func (h *host) sh(s *supervisor.Supervisor, ref, script string) (string, int) {
	h.t.Helper()
	conn, err := s.Guests().Exec(h.ctx(), ref, banger.Exec{Args: []string{"/bin/sh", "-c", script}})
	check(h.t, err)
	return h.output(conn)
}

// output reads a command's stream to its end.
func (h *host) output(conn net.Conn) (out string, code int) {
	h.t.Helper()
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	frames := banger.NewFrameReader(conn)
	for {
		typ, p, err := frames.Next()
		switch {
		case err != nil || typ == banger.FrameError:
			h.t.Fatalf("after %q the stream ends with %q, %v", out, p, err)
		case typ == banger.FrameStdout || typ == banger.FrameStderr:
			out += string(p)
		case typ == banger.FrameExit:
			var exit banger.Exit
			check(h.t, json.Unmarshal(p, &exit))
			return out, exit.Status()
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode checks the code of an error.
func wantCode(t *testing.T, err error, code banger.Code) {
	t.Helper()
	if err == nil || banger.CodeOf(err) != code || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is %v (code %s), not one sentence of code %s", err, banger.CodeOf(err), code)
	}
}

// wantState checks the state of a VM in memory and in its row.
func (h *host) wantState(s *supervisor.Supervisor, ref string, state banger.State, reason string) banger.VM {
	h.t.Helper()
	vm, err := s.Get(ref)
	check(h.t, err)
	if vm.State != state || !strings.Contains(vm.Reason, reason) {
		h.t.Errorf("VM %s is %s (%q), not %s (%q)", vm.Name, vm.State, vm.Reason, state, reason)
	}
	if row := h.row(vm.ID); row.State != vm.State || row.Reason != vm.Reason || row.Name != vm.Name {
		h.t.Errorf("the row says %s %s (%q)", row.Name, row.State, row.Reason)
	}
	return vm
}

// finder returns a function that finds the program of a driver, as a daemon does.
func finder(d vmm.Driver) func(context.Context) (string, string, error) {
	return func(ctx context.Context) (string, string, error) {
		version, err := d.Version(ctx)
		return "", version, err
	}
}

// execSQL changes the database in ways in which banger never does.
func (h *host) execSQL(text string) {
	h.t.Helper()
	db, err := sql.Open("sqlite", h.path("banger.db"))
	check(h.t, err)
	defer db.Close()
	_, err = db.ExecContext(h.ctx(), text)
	check(h.t, err)
}

func rowOf(vm banger.VM, slot int) store.Row { return store.Row{VM: vm, Slot: slot, Committed: true} }
