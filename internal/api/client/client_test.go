package client_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/frame"
	"banger/internal/testing/hosttest"
)

func TestMain(m *testing.M) { os.Exit(hosttest.Main(m)) }

// world is a client of a real daemon.
type world struct {
	*client.Client
	h      *hosttest.Host
	socket string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	h := hosttest.New(t)
	socket := h.Serve()
	return &world{client.New(socket), h, socket}
}

// spec returns a VM that waits for commands.
func (w *world) spec(name string) banger.Spec {
	return banger.Spec{Name: name, Image: w.h.Image, Disk: banger.MinDisk, Env: []string{"SECRET=x"},
		Cmd: []string{"sleep", "1000"}, Labels: map[string]string{"tier": name}}
}

// ok ends the test at an error. It returns the value that came with it.
func ok[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		hosttest.Check(t, err)
		return v
	}
}

// TestALifeByTheAPI calls the methods for VMs one after another and checks what each of them returns.
func TestALifeByTheAPI(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	vm := ok[banger.VM](t)
	var told []string
	emit := func(e banger.Event) { told = append(told, e.Text) }
	box := vm(w.Create(ctx, w.spec("box"), nil, true, emit))
	if box.State != banger.StateRunning || len(told) == 0 || !strings.HasPrefix(box.Start, "cold, ") {
		t.Errorf("it is %+v, after %q", box, told)
	}
	if box.Spec.Env[0] != "SECRET="+banger.HiddenValue {
		t.Errorf("the environment is %q", box.Spec.Env)
	}
	rest := vm(w.Create(ctx, w.spec("rest"), nil, false, banger.Discard))
	if got := vm(w.Get(ctx, "rest")); got.ID != rest.ID || got.State != banger.StateCreated || got.Start != "" {
		t.Errorf("it is %+v", got)
	}
	if got := vm(w.GetWithEnv(ctx, "rest")); got.Spec.Env[0] != "SECRET=x" {
		t.Errorf("the environment is %q", got.Spec.Env)
	}
	if got := vm(w.Rename(ctx, "rest", "other")); got.Name != "other" {
		t.Errorf("it is %+v", got)
	}
	if got := vm(w.Start(ctx, "other", false, false, banger.Discard)); got.State != banger.StateRunning {
		t.Errorf("it is %+v", got)
	}
	if got := vm(w.Restart(ctx, "other", 0, banger.Discard)); got.State != banger.StateRunning {
		t.Errorf("it is %+v", got)
	}
	if got := vm(w.Stop(ctx, "other", time.Second)); got.State != banger.StateStopped {
		t.Errorf("it is %+v", got)
	}
	vm(w.Kill(ctx, "box", 15))
	if got := vm(w.Wait(ctx, "box")); got.ExitCode == nil || *got.ExitCode != 143 {
		t.Errorf("it is %+v", got)
	}
	hosttest.Check(t, w.Remove(ctx, "box", false))
	if list, err := w.Prune(ctx); err != nil || len(list) != 1 || list[0].Name != "other" {
		t.Errorf("it removes %+v, %v", list, err)
	}
	if list, err := w.List(ctx, true, nil); err != nil || list == nil || len(list) != 0 {
		t.Errorf("there are %+v, %v", list, err)
	}
}

// TestErrorsKeepTheirCode calls each method for a VM, image, kernel or network that there is not.
func TestErrorsKeepTheirCode(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	for name, f := range map[string]func() error{
		"Get":     func() error { _, err := w.Get(ctx, "no"); return err },
		"Start":   func() error { _, err := w.Start(ctx, "no", false, false, banger.Discard); return err },
		"Stop":    func() error { _, err := w.Stop(ctx, "no", 0); return err },
		"Restart": func() error { _, err := w.Restart(ctx, "no", 0, banger.Discard); return err },
		"Kill":    func() error { _, err := w.Kill(ctx, "no", 9); return err },
		"Rename":  func() error { _, err := w.Rename(ctx, "no", "x"); return err },
		"Remove":  func() error { return w.Remove(ctx, "no", true) },
		"Wait":    func() error { _, err := w.Wait(ctx, "no"); return err },
		"Exec":    func() error { _, err := w.Exec(ctx, "no", banger.Exec{Args: []string{"true"}}); return err },
		"SSH": func() error {
			_, err := w.SSH(ctx, "no", banger.SSH{Keys: []string{"ssh-ed25519 AAAA"}})
			return err
		},
		"Files": func() error {
			r := banger.FileRequest{Op: banger.FileArchive, Path: []byte("/x"), Name: []byte("x")}
			_, err := w.Files(ctx, "no", r)
			return err
		},
		"StatFile": func() error {
			_, err := w.StatFile(ctx, "no", banger.FileRequest{Path: []byte("/")})
			return err
		},
		"Logs":          func() error { _, err := w.Logs(ctx, "no", -1, false); return err },
		"Output":        func() error { _, _, err := w.Output(ctx, "no", banger.LogView{}); return err },
		"Stats":         func() error { _, err := w.Stats(ctx, "no"); return err },
		"Ports":         func() error { _, err := w.Ports(ctx, "no", false); return err },
		"AddForward":    func() error { _, err := w.AddForward(ctx, "no", forward(80)); return err },
		"RemoveForward": func() error { return w.RemoveForward(ctx, "no", forward(80)) },
		"SetPolicy": func() error {
			_, err := w.SetPolicy(ctx, "no", banger.Policy{Default: banger.Deny})
			return err
		},
		"Denials":   func() error { return w.Denials(ctx, "no", 1, false, nil) },
		"Decisions": func() error { return w.Decisions(ctx, "no", 1, false, nil) },
		"AllowOnce": func() error {
			return w.AllowOnce(ctx, "no", banger.Rule{Action: banger.Allow, To: banger.ToHost}, 1)
		},
		"ConnectNetwork": func() error { _, err := w.ConnectNetwork(ctx, "no", "user"); return err },
		"CommitVM": func() error {
			_, err := w.CommitVM(ctx, "no", "x", banger.CommitNote{}, banger.Discard)
			return err
		},
		"Network":        func() error { _, err := w.Network(ctx, "no"); return err },
		"RemoveNetwork":  func() error { return w.RemoveNetwork(ctx, "no") },
		"Image":          func() error { _, err := w.Image(ctx, "no"); return err },
		"ImageHistory":   func() error { _, err := w.ImageHistory(ctx, "no"); return err },
		"RemoveImage":    func() error { return w.RemoveImage(ctx, "no") },
		"TagImage":       func() error { _, err := w.TagImage(ctx, "no", "x"); return err },
		"PushImage":      func() error { _, err := w.PushImage(ctx, "no", banger.Discard); return err },
		"PromoteImage":   func() error { _, err := w.PromoteImage(ctx, "no"); return err },
		"SaveImages":     func() error { return w.SaveImages(ctx, []string{"no"}, io.Discard) },
		"Kernel":         func() error { _, err := w.Kernel(ctx, "no"); return err },
		"RemoveKernel":   func() error { return w.RemoveKernel(ctx, "no") },
		"RemoveTemplate": func() error { return w.RemoveTemplate(ctx, "no") },
	} {
		if err := f(); banger.CodeOf(err) != banger.CodeNotFound || !strings.Contains(err.Error(), "no") {
			t.Errorf("%s returns %v (%s)", name, err, banger.CodeOf(err))
		}
	}
}

func forward(port int) banger.Forward {
	return banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: uint16(port)}
}

// frames joins what comes on a stream until its last frame, which follows a "|".
func frames(t *testing.T, conn net.Conn) (out string) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(hosttest.Patience))
	r := frame.NewReader(conn)
	for {
		typ, p, err := r.Next()
		hosttest.Check(t, err)
		switch typ {
		case frame.Stdout:
			out += string(p)
		case frame.Exit, frame.Error:
			return out + "|" + string(p)
		}
	}
}

// TestConnections changes what a VM may reach and where it is reached.
func TestConnections(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	ok[banger.VM](t)(w.Create(ctx, w.spec("box"), nil, true, banger.Discard))
	f := ok[banger.Forward](t)(w.AddForward(ctx, "box", forward(80)))
	if f.HostPort == 0 {
		t.Errorf("the forward is %+v", f)
	}
	hosttest.Check(t, w.RemoveForward(ctx, "box", f))
	list, err := w.Ports(ctx, "box", false)
	if err != nil || list == nil {
		t.Errorf("the ports are %v, %v", list, err)
	}
	policy := banger.Policy{Default: banger.Deny}
	if got := ok[banger.VM](t)(w.SetPolicy(ctx, "box", policy)); got.Spec.Policy.Default != banger.Deny {
		t.Errorf("the policy is %+v", got.Spec.Policy)
	}
	hosttest.Check(t, w.Denials(ctx, "box", 10, false, func(d banger.Decision) { t.Errorf("there is %+v", d) }))
	hosttest.Check(t, w.Decisions(ctx, "box", 10, false, func(d banger.Decision) { t.Errorf("there is %+v", d) }))
	hosttest.Check(t, w.AllowOnce(ctx, "box", banger.Rule{Action: banger.Allow, To: banger.ToHost}, 60))
	follow, interrupt := context.WithCancel(ctx)
	interrupt()
	if err := w.Denials(follow, "box", -1, true, nil); banger.CodeOf(err) != banger.CodeCanceled {
		t.Errorf("following ends with %v", err)
	}
	if _, err := w.ConnectNetwork(ctx, "box", "none"); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("a VM that runs gets another network: %v", err)
	}
	if _, err := w.CreateNetwork(ctx, "lab", ""); banger.CodeOf(err) != banger.CodeDenied {
		t.Errorf("without root there is a network: %v", err)
	}
	if list, err := w.Networks(ctx); err != nil || list == nil || len(list) != 0 {
		t.Errorf("the networks are %v, %v", list, err)
	}
}

// TestImagesByTheAPI calls the methods for images and kernels.
func TestImagesByTheAPI(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	img := ok[banger.Image](t)
	pulled := img(w.PullImage(ctx, w.h.Image, "", banger.Discard))
	tagged := img(w.TagImage(ctx, w.h.Image, "example.com/other:v1"))
	if tagged.Digest != pulled.Digest || img(w.Image(ctx, "example.com/other:v1")).Digest != pulled.Digest {
		t.Errorf("it is %+v", tagged)
	}
	if list, err := w.Images(ctx, false); err != nil || len(list) != 2 {
		t.Errorf("the images are %v, %v", list, err)
	}
	if _, err := w.Images(ctx, true); err != nil {
		t.Error(err)
	}
	if list, err := w.ImageUsage(ctx); err != nil || len(list) != 1 || len(list[0].References) != 2 {
		t.Errorf("the usage is %+v, %v", list, err)
	}
	if list, err := w.ImageHistory(ctx, w.h.Image); err != nil || list == nil {
		t.Errorf("the history is %v, %v", list, err)
	}
	var tar bytes.Buffer
	hosttest.Check(t, w.SaveImages(ctx, []string{"example.com/other:v1"}, &tar))
	hosttest.Check(t, w.RemoveImage(ctx, "example.com/other:v1"))
	if list, err := w.LoadImages(ctx, &tar, banger.Discard); err != nil || len(list) != 1 ||
		list[0].Reference != "example.com/other:v1" {
		t.Errorf("it brings %+v, %v", list, err)
	}
	if _, err := w.ExtendImage(ctx, "none", "mine:v1", &tar, banger.CommitNote{}, banger.Discard); banger.CodeOf(err) !=
		banger.CodeNotFound {
		t.Errorf("a missing image is extended: %v", err)
	}
	if p, err := w.PruneImages(ctx, true, true); err != nil || len(p.Images) != 1 {
		t.Errorf("it would remove %+v, %v", p, err)
	}
	if _, err := w.RegisterImage(ctx, "mine", "/no/such", ""); err == nil {
		t.Error("a missing file is registered")
	}
	k := ok[banger.Kernel](t)(w.Kernel(ctx, "test"))
	if list, err := w.Kernels(ctx); err != nil || len(list) != 1 || list[0].Name != k.Name {
		t.Errorf("the kernels are %v, %v", list, err)
	}
	modules := w.h.Path("lib/modules/6.1.0-test")
	other := ok[banger.Kernel](t)(w.ImportKernel(ctx, "other", w.h.Path("agent"), modules, banger.Discard))
	hosttest.Check(t, w.RemoveKernel(ctx, other.Name))
}

// TestNoDaemon checks the error of each kind of request when none answers.
func TestNoDaemon(t *testing.T) {
	t.Parallel()
	c := client.New(t.TempDir() + "/none.sock")
	_, err := c.Version(t.Context())
	_, xerr := c.Exec(t.Context(), "box", banger.Exec{Args: []string{"true"}})
	_, perr := c.PullImage(t.Context(), "x", "", banger.Discard)
	for _, err := range []error{err, xerr, perr} {
		if banger.CodeOf(err) != banger.CodeUnavailable ||
			!strings.HasPrefix(fmt.Sprint(err), "the daemon does not answer: ") {
			t.Errorf("it is %v", err)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if _, err := c.Version(ctx); banger.CodeOf(err) != banger.CodeCanceled {
		t.Errorf("it is %v", err)
	}
}

// TestAnErrorInMidStream lets a start fail after its first event, when the status has been sent.
func TestAnErrorInMidStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.h.Fault("die-at-once")
	events := 0
	_, err := w.Create(t.Context(), w.spec("box"), nil, true, func(banger.Event) { events++ })
	if events == 0 || err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("after %d events it is %v", events, err)
	}
}
