package supervisor_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/shim"
	"banger/internal/store"
	"banger/internal/supervisor"
	"banger/internal/testing/hosttest"
	"banger/internal/testing/vmmtest"
)

// patience bounds every wait. Only a failing wait takes nearly as long.
const patience = hosttest.Patience

// TestMain also runs the shims.
func TestMain(m *testing.M) { os.Exit(hosttest.Main(m)) }

// host is a machine with an image, a kernel and a daemon's directories, on which supervisors run one after another.
type host struct {
	*hosttest.Host
	t     *testing.T
	dir   string
	opts  *supervisor.Options
	image string // reference of the only image
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := hosttest.New(t)
	return &host{h, t, h.Dir, &h.Options, h.Image}
}

func (h *host) path(name string) string           { return h.Path(name) }
func (h *host) daemon() *supervisor.Supervisor    { return h.Supervisor() }
func (h *host) fault(faults ...vmmtest.Fault)     { h.Fault(faults...) }
func (h *host) processes() []int                  { return h.Processes() }
func (h *host) await(what string, ok func() bool) { h.T.Helper(); h.Await(what, ok) }

// said returns the last tail lines that a VM's main command wrote.
func (h *host) said(s *supervisor.Supervisor, ref string, tail int) string {
	h.T.Helper()
	var frames bytes.Buffer
	apart, err := s.Guests().Output(h.ctx(), ref, banger.LogView{Tail: tail}, &frames)
	if check(h.t, err); !apart {
		h.T.Errorf("only the console has the output of %s", ref)
	}
	return hosttest.Output(h.T, &frames)
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
	vm, err := s.Create(h.ctx(), spec, nil, true, banger.Discard)
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
	frames := frame.NewReader(conn)
	for {
		typ, p, err := frames.Next()
		switch {
		case err != nil || typ == frame.Error:
			h.t.Fatalf("after %q the stream ends with %q, %v", out, p, err)
		case typ == frame.Stdout || typ == frame.Stderr:
			out += string(p)
		case typ == frame.Exit:
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
