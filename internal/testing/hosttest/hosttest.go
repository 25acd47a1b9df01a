// Package hosttest makes hosts for tests: directories with an image, a kernel and a database, on which real supervisors
// run VMs with real shims and agents, but with the driver in memory. The packages above a driver are tested on such a
// host in milliseconds, without a VMM.
//
// It must not know what a test checks, nor any real VMM. Only tests import it.
package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"banger"
	"banger/internal/frame"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/shim/server"
	"banger/internal/store"
	"banger/internal/supervisor"
	"banger/internal/testing/vmmtest"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// Patience bounds every wait. Only a failing wait takes nearly as long.
const Patience = 60 * time.Second

var agent string // path of the guest agent's binary; set by Main

// Main runs the tests of a package that uses hosts and returns the exit code. A TestMain calls it. It builds the guest
// agent. In a process that was started as a shim, Main runs the shim and does not return.
func Main(m *testing.M) int {
	RunShim()
	dir, err := os.MkdirTemp("", "hosttest")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	agent = filepath.Join(dir, "agent")
	if out, err := exec.Command("go", "build", "-o", agent, "banger/cmd/banger-agent").CombinedOutput(); err != nil {
		panic(string(out))
	}
	return m.Run()
}

// shimWord is the first argument of a process that is a shim.
const shimWord = "shim"

// ShimArgv returns the command that starts a shim as the test's own program, TEST shim AGENT FAULTS DIR. The
// supervisor adds DIR.
func ShimArgv(agent, faults string) []string {
	return []string{"/proc/self/exe", shimWord, agent, faults}
}

// RunShim runs a shim and does not return, if this process was started by the command of ShimArgv.
func RunShim() {
	if len(os.Args) != 5 || os.Args[1] != shimWord {
		return
	}
	driver := vmmtest.Memory{
		Agent: os.Args[2],
		Fault: func(vmm.Config) vmmtest.Fault { return takeFault(os.Args[3]) },
	}
	_, err := os.Stat(os.Args[3] + withTemplates)
	driver.Templates = err == nil
	if err = server.Run(context.Background(), map[string]vmm.Driver{driver.Name(): driver}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	syscall.Exit(0) // os.Exit would take one second longer in the race detector
}

// withTemplates is the end of the name of a file beside the faults of a host whose VMs start from templates.
const withTemplates = ".templates"

// Templates makes the VMs of later supervisors start from templates. The host is said to be always idle.
func (h *Host) Templates() {
	h.T.Helper()
	Check(h.T, os.WriteFile(h.Path("faults")+withTemplates, nil, 0o600))
	h.Options.VMMs.VMMs[0].Templates = true
	h.Options.Idle = func(context.Context) error { return nil }
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
	_, fault, _ := bytes.Cut([]byte(name), []byte(" "))
	return vmmtest.Fault(fault)
}

// Host is a machine with an image, a kernel and a daemon's directories, on which supervisors run one after another.
type Host struct {
	T       *testing.T
	Dir     string
	Options supervisor.Options
	Image   string // reference of the only image
}

// New returns a host. At the end of the test its files are removed, when all its processes have ended.
func New(t *testing.T) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "bh") // shorter than t.TempDir: a socket's path has 108 bytes
	Check(t, err)
	h := &Host{T: t, Dir: dir}
	t.Cleanup(func() {
		h.Await("all its processes end", func() bool { return len(h.Processes()) == 0 })
		Check(t, os.RemoveAll(dir))
	})
	Check(t, os.Mkdir(h.Path("faults"), 0o700))
	Check(t, os.Link(agent, h.Path("agent"))) // this path identifies the processes of this host
	images, err := image.Open(h.Path("images"), image.Options{})
	Check(t, err)
	kernels, err := kernel.Open(h.Path("kernels"))
	Check(t, err)
	h.Options = supervisor.Options{
		StateDir: h.Path("state"),
		RunDir:   h.Path("run"),
		Agent:    []byte("a guest agent"),
		ShimArgv: ShimArgv(h.Path("agent"), h.Path("faults")),
		VMMs:     choice.Host{VMMs: []choice.VMM{VMM(agent)}},
		Images:   images,
		Kernels:  kernels,
	}
	h.addImage()
	h.addKernel()
	h.Options.Store, err = store.Open(t.Context(), h.Path("banger.db"))
	Check(t, err)
	t.Cleanup(func() { h.Options.Store.Close() })
	return h
}

// VMM returns the driver in memory, whose guests run the agent.
func VMM(agent string) choice.VMM {
	driver := vmmtest.Memory{Agent: agent}
	return choice.VMM{Name: driver.Name(), Find: func(ctx context.Context) (string, string, error) {
		version, err := driver.Version(ctx)
		return "", version, err
	}}
}

// Path returns the path of a file below the host's directory.
func (h *Host) Path(name string) string { return filepath.Join(h.Dir, name) }

// FakeImage returns an image without files, whose command is a bare shell.
func FakeImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		RootFS:       v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}},
		Config:       v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"FROM=image", "BOTH=image"}},
	})
	Check(t, err)
	return img
}

// WriteLayout writes img as an OCI layout to a new directory and returns the reference of the image.
func WriteLayout(t *testing.T, dir string, img v1.Image) string {
	t.Helper()
	at, err := layout.Write(dir, empty.Index)
	Check(t, err)
	Check(t, at.AppendImage(img))
	return "oci:" + dir
}

// addImage installs the fake image.
func (h *Host) addImage() {
	h.T.Helper()
	h.Image = WriteLayout(h.T, h.Path("oci"), FakeImage(h.T))
	_, err := h.Options.Images.Ensure(h.T.Context(), h.Image, "", banger.PullMissing, banger.Discard)
	Check(h.T, err)
}

// addKernel installs a kernel of made-up files. Any ELF file can be a kernel image.
func (h *Host) addKernel() {
	h.T.Helper()
	modules := h.Path("lib/modules/6.1.0-test")
	Check(h.T, os.MkdirAll(modules, 0o755))
	Check(h.T, os.WriteFile(filepath.Join(modules, "modules.dep.bin"), []byte("index"), 0o644))
	Check(h.T, os.WriteFile(filepath.Join(modules, "unused.ko"), []byte("module"), 0o644))
	_, err := h.Options.Kernels.Import(h.T.Context(), "test", agent, modules, "a test", banger.Discard)
	Check(h.T, err)
}

// Supervisor starts a supervisor of the host. The VMs outlive it, until the end of the test.
func (h *Host) Supervisor() *supervisor.Supervisor {
	h.T.Helper()
	s, err := supervisor.New(h.Options)
	Check(h.T, err)
	Check(h.T, s.Restore(h.T.Context()))
	h.T.Cleanup(s.Close)
	h.T.Cleanup(func() { // closes the last supervisor; the earlier ones are closed
		for _, vm := range s.List(func(banger.VM) bool { return true }) {
			s.Remove(context.Background(), vm.ID, true)
		}
	})
	return s
}

// Fault makes each of the next starts fail with one of the faults.
func (h *Host) Fault(faults ...vmmtest.Fault) {
	h.T.Helper()
	for i, f := range faults {
		Check(h.T, os.WriteFile(filepath.Join(h.Path("faults"), fmt.Sprintf("%d %s", i, f)), nil, 0o600))
	}
}

// Processes lists the running shims and VMMs of this host.
func (h *Host) Processes() []int { return ProcessesOf(h.Dir + "/") }

// ProcessesOf lists the processes whose command line contains text, except this one.
func ProcessesOf(text string) (pids []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		cmdline, err := os.ReadFile(path) // a zombie has no command line
		if err == nil && bytes.Contains(cmdline, []byte(text)) {
			var pid int
			fmt.Sscanf(path, "/proc/%d/", &pid)
			if pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Await polls until ok returns true, for conditions without an event, such as those of another process.
func (h *Host) Await(what string, ok func() bool) {
	h.T.Helper()
	for late := time.Now().Add(Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			h.T.Fatalf("this does not happen: %s (processes %v)", what, h.Processes())
		}
	}
}

// Check ends the test at an error.
func Check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Output returns what the frames in r have, both streams together.
func Output(t testing.TB, r io.Reader) string {
	t.Helper()
	var out strings.Builder
	frames := frame.NewReader(r)
	for {
		typ, p, err := frames.Next()
		if err == io.EOF {
			return out.String()
		}
		Check(t, err)
		if typ != frame.Stdout && typ != frame.Stderr {
			t.Fatalf("an output has frame %d", typ)
		}
		out.Write(p)
	}
}

// Stream returns a connection that reads from r and writes to w. Its deadlines do nothing.
func Stream(r, w *os.File) net.Conn { return stream{r, w} }

type stream struct{ r, w *os.File }

func (s stream) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s stream) Write(p []byte) (int, error)      { return s.w.Write(p) }
func (s stream) Close() error                     { return errors.Join(s.w.Close(), s.r.Close()) }
func (s stream) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s stream) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s stream) SetDeadline(time.Time) error      { return nil }
func (s stream) SetReadDeadline(time.Time) error  { return nil }
func (s stream) SetWriteDeadline(time.Time) error { return nil }
