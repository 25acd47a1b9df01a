package client_test

import (
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/testing/hosttest"
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
