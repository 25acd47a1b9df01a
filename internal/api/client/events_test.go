package client_test

import (
	"context"
	"slices"
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/testing/hosttest"
	"banger/internal/usage"
)

// TestTheClientReadsEvents follows a VM through the client, and goes on behind a cursor.
func TestTheClientReadsEvents(t *testing.T) {
	h := hosttest.New(t)
	c := client.New(h.Serve())
	var last banger.Change
	read := func(since string) (changes []banger.Change) {
		t.Helper()
		tell := func(change banger.Change) { changes = append(changes, change) }
		if err := c.Events(t.Context(), since, false, tell); err != nil {
			t.Fatal(err)
		}
		if len(changes) > 0 {
			last = changes[len(changes)-1]
		}
		return changes
	}
	if got := read(""); len(got) != 1 || !got[0].State || len(got[0].VMs) != 0 {
		t.Errorf("a host without VMs says %+v", got)
	}
	spec := banger.Spec{Image: h.Image, Name: "box", Env: []string{"A=secret"}}
	if _, err := c.Create(t.Context(), spec, nil, false, banger.Discard); err != nil {
		t.Fatal(err)
	}
	got := read(last.Cursor)
	if last.VM == nil || last.VM.Name != "box" || last.VM.Spec.Env[0] == "A=secret" {
		t.Errorf("after a creation it says %+v", got)
	}
	if got := read(last.Cursor); len(got) != 0 {
		t.Errorf("behind the last change it says %+v", got)
	}
	err := c.Events(t.Context(), "x", false, func(banger.Change) {})
	if banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("an invalid cursor causes %v", err)
	}
}

// TestTheClientReadsMetrics waits for the first samples of a VM, and asks again behind their cursor.
func TestTheClientReadsMetrics(t *testing.T) {
	h := hosttest.New(t)
	c := client.New(h.Serve())
	vm, err := c.Create(t.Context(), banger.Spec{Image: h.Image, Name: "box"}, nil, true, banger.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Patience)
	defer cancel()
	var last usage.Metrics
	c.Metrics(ctx, "box", true, "", true, func(m usage.Metrics) {
		last = m
		if len(m.VMs) > 0 {
			cancel()
		}
	})
	if !slices.Equal(last.VMs, []string{vm.ID}) || len(last.Now.Memory) != 1 || !(last.Now.Memory[0] > 0) {
		t.Fatalf("the last line is %+v", last)
	}
	var behind, whole []usage.Metrics
	ctx = t.Context()
	err = c.Metrics(ctx, "", false, last.Cursor, false, func(m usage.Metrics) { behind = append(behind, m) })
	if err != nil || len(behind) > 0 {
		t.Errorf("behind the last line there are %+v, %v", behind, err)
	}
	err = c.Metrics(ctx, vm.ID, false, "", false, func(m usage.Metrics) { whole = append(whole, m) })
	if err != nil || len(whole) != 3 || !whole[0].State || whole[1].VM != vm.ID || whole[2].Step < last.Step {
		t.Errorf("the whole state is %+v, %v", whole, err)
	}
	err = c.Metrics(ctx, "nonesuch", false, "", false, func(usage.Metrics) {})
	if banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("a VM that is not there causes %v", err)
	}
}
