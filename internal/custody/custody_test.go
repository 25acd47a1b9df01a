package custody

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"

	"banger"
	"banger/internal/guest"
	"banger/internal/vmdir"
)

// one has a VM that runs, whose agent does not answer.
type one struct {
	vm    banger.VM
	full  bool // its row cannot be stored
	wakes int
}

var errSilent = errors.New("no agent")

func (o *one) Get(string) (banger.VM, error) { return o.vm, nil }

func (o *one) Wake(context.Context, string) (banger.VM, error) {
	o.wakes++
	o.vm.State = banger.StateRunning
	return o.vm, nil
}

func (o *one) Alter(ctx context.Context, _ string, f func(context.Context, banger.VM, Change) error) error {
	return f(ctx, o.vm, func(_ context.Context, change func(*banger.VM)) error {
		if o.full {
			return banger.Errorf(banger.CodeDisk, "the disk is full")
		}
		change(&o.vm)
		return nil
	})
}

func (o *one) Agent(string) guest.Client {
	return guest.Client{Dial: func(context.Context) (net.Conn, error) { return nil, errSilent }}
}

// TestWhatAGuestDoesNotTakeIsAsBefore: neither the row nor the files have a new secret, and an old one keeps its value.
func TestWhatAGuestDoesNotTakeIsAsBefore(t *testing.T) {
	o := &one{vm: banger.VM{ID: "0123456789ab", Name: "box", State: banger.StateStopped}}
	c := Custody{VMs: o, Dirs: vmdir.Dirs{Run: t.TempDir()}}
	want := func(names []string, a string) {
		t.Helper()
		values, err := c.files(o.vm.ID).Read([]string{"A", "B"})
		if !slices.Equal(o.vm.Secrets, names) || len(values) != len(names) || string(values["A"]) != a || err != nil {
			t.Errorf("the VM has %q, and the host %q, %v", o.vm.Secrets, values, err)
		}
	}
	if err := c.Set(t.Context(), "box", "A", []byte("old")); err != nil {
		t.Fatal(err)
	}
	o.vm.State = banger.StateSuspended
	for name, err := range map[string]error{
		"a new one":     c.Set(t.Context(), "box", "B", []byte("new")),
		"another value": c.Set(t.Context(), "box", "A", []byte("new")),
		"a removal":     c.Remove(t.Context(), "box", "A"),
	} {
		if !errors.Is(err, errSilent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want([]string{"A"}, "old")
	if o.wakes != 1 {
		t.Errorf("it was woken %d times", o.wakes)
	}
	o.full = true
	if err := c.Set(t.Context(), "box", "B", []byte("new")); banger.CodeOf(err) != banger.CodeDisk {
		t.Errorf("without a row: %v", err)
	}
	want([]string{"A"}, "old")
	o.vm.Spec.NoWake, o.vm.State = true, banger.StateSuspended
	if err := c.Set(t.Context(), "box", "B", nil); banger.CodeOf(err) != banger.CodeConflict || o.wakes != 1 {
		t.Errorf("a VM that nobody wakes: %v", err)
	}
}
