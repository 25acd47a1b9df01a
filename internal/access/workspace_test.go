package access_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"

	"banger"
	"banger/internal/access"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/image"
)

// vms has one VM, whose agent does not answer.
type vms struct {
	access.VMs
	vm banger.VM
}

var errOwn = errors.New("its own agent was asked")

func (v vms) Get(string) (banger.VM, error)                   { return v.vm, nil }
func (v vms) Wake(context.Context, string) (banger.VM, error) { return v.vm, errOwn }

// disk lends an agent with one workspace, and counts how often the agent is lent and comes back.
type disk struct {
	err    error  // of Still
	broken bool   // the agent does not answer
	lent   int    // how often it was lent
	back   []bool // how it came back
}

func (d *disk) Still(context.Context, string) (guest.Client, func(bool), error) {
	if d.err != nil {
		return guest.Client{}, nil, d.err
	}
	d.lent++
	dial := func(context.Context) (net.Conn, error) {
		if d.broken {
			return nil, io.ErrUnexpectedEOF
		}
		ours, theirs := net.Pipe()
		go d.answer(theirs) // ends with the stream
		return ours, nil
	}
	return guest.Client{Dial: dial}, func(keep bool) { d.back = append(d.back, keep) }, nil
}

func (d *disk) answer(conn net.Conn) {
	defer conn.Close()
	frame.NewReader(conn).Next()
	frame.WriteJSON(conn, frame.Response, []banger.Workspace{{Name: "box"}})
	io.Copy(io.Discard, conn)
}

// workspaces returns the workspaces of a VM in a state.
func workspaces(t *testing.T, state banger.State, d *disk) access.Workspaces {
	t.Helper()
	images, err := image.Open(t.TempDir(), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	vm := banger.VM{ID: "0123456789ab", Name: "box", State: state, ImageDigest: "sha256:0"}
	return access.Guests{VMs: vms{vm: vm}, Images: images}.Workspaces(d)
}

// TestWhoIsAskedForWorkspaces: the disk of a VM at rest, and otherwise the VM. Only reading is possible at rest.
func TestWhoIsAskedForWorkspaces(t *testing.T) {
	for state, want := range map[banger.State]int{banger.StateCreated: 2, banger.StateStopped: 2, banger.StateFailed: 2,
		banger.StateRunning: 0, banger.StatePaused: 0, banger.StateSuspended: 0, banger.StateStarting: 0,
		banger.StateStopping: 0, banger.StateUnreachable: 0} {
		d := &disk{}
		w := workspaces(t, state, d)
		list, err := w.List(t.Context(), "box")
		if (err == nil) != (want > 0) || len(list) != want/2 || want > 0 && !list[0].Stored {
			t.Errorf("%s: there are %+v, %v", state, list, err)
		}
		stream, err := w.Changes(t.Context(), "box", "box", "", nil)
		if (err == nil) != (want > 0) || d.lent != want || len(d.back) != want/2 {
			t.Errorf("%s: it was lent %d times, and is back %v, %v", state, d.lent, d.back, err)
		}
		if err == nil {
			stream.Close()
		}
		_, reset := w.Reset(t.Context(), "box", "box")
		_, set := w.SetBaseline(t.Context(), "box", "box", "two", nil)
		_, prepare := w.Prepare(t.Context(), "box", banger.Workspace{ID: "0123456789abcdef0123456789abcdef",
			Name: "box", Path: "/box", Baseline: "one"}, "")
		for _, err := range []error{reset, set, prepare, w.Remove(t.Context(), "box", "box", true)} {
			if err == nil || want > 0 && banger.CodeOf(err) != banger.CodeConflict {
				t.Errorf("%s: a change: %v", state, err)
			}
		}
		if d.lent != want {
			t.Errorf("%s: a change lent it %d times", state, d.lent)
		}
	}
}

// TestADiskComesBack with the end of the stream and after each error, but after a list it may stay for the next call.
func TestADiskComesBack(t *testing.T) {
	d := &disk{}
	w := workspaces(t, banger.StateStopped, d)
	if _, err := w.List(t.Context(), "box"); err != nil || !slices.Equal(d.back, []bool{true}) {
		t.Errorf("after a list it is back %v, %v", d.back, err)
	}
	stream, err := w.Changes(t.Context(), "box", "box", "", nil)
	if err != nil || len(d.back) != 1 {
		t.Fatalf("while a stream is open it is back %v, %v", d.back, err)
	}
	if _, ok := stream.(interface{ Give(net.Conn) (bool, error) }); ok {
		t.Error("the stream can be given away, so nobody sees its end")
	}
	if half, ok := stream.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		t.Error("its sending direction cannot be closed")
	}
	if err := stream.Close(); err != nil || !slices.Equal(d.back, []bool{true, false}) {
		t.Errorf("after a stream it is back %v, %v", d.back, err)
	}
	d.broken, d.back = true, nil
	_, list := w.List(t.Context(), "box")
	_, changes := w.Changes(t.Context(), "box", "box", "", nil)
	if list == nil || changes == nil || !slices.Equal(d.back, []bool{false, false}) {
		t.Errorf("after errors it is back %v, %v, %v", d.back, list, changes)
	}
	d.err = errors.New("no disk")
	if _, err := w.List(t.Context(), "box"); !errors.Is(err, d.err) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
	if _, err := w.Changes(t.Context(), "box", "box", "", nil); !errors.Is(err, d.err) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
	_, err = w.Changes(t.Context(), "box", "box", "nonesuch", nil)
	if banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("a part that there is not: %v", err)
	}
}

// TestAVMThatIsBeingMade has no workspaces, and no disk.
func TestAVMThatIsBeingMade(t *testing.T) {
	d := &disk{}
	w := access.Guests{VMs: vms{vm: banger.VM{Name: "box", State: banger.StateCreated}}}.Workspaces(d)
	if list, err := w.List(t.Context(), "box"); err != nil || list == nil || len(list) > 0 || d.lent > 0 {
		t.Errorf("there are %+v, %v", list, err)
	}
}
