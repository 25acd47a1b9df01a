package launch

import (
	"slices"
	"testing"

	"banger"
)

// TestAStartInWords checks what a VM says of its start: without the times of its creation, and only of the last one.
func TestAStartInWords(t *testing.T) {
	creation := []banger.Timing{{Stage: "image", Millis: 9000}, {Stage: "disk", Millis: 70}}
	boot := []banger.Timing{{Stage: "queue", Millis: 5}, {Stage: "vmm", Millis: 245}, {Stage: "boot", Millis: 2500}}
	restore := []banger.Timing{{Stage: "vmm", Millis: 180}, {Stage: "warm", Millis: 304}}
	vm := banger.VM{Timings: creation}
	(&Stopwatch{Timings: boot}).Note(&vm)
	if want := slices.Concat(creation, boot); vm.Start != "cold, 2.75 s" || !slices.Equal(vm.Timings, want) {
		t.Errorf("it is %q, after %+v", vm.Start, vm.Timings)
	}
	vm.Template = "7b8c5098a5b2"
	(&Stopwatch{Timings: restore}).Note(&vm)
	want := slices.Concat(creation, restore)
	if vm.Start != "warm (template 7b8c5098a5b2), 0.48 s" || !slices.Equal(vm.Timings, want) {
		t.Errorf("it is %q, after %+v", vm.Start, vm.Timings)
	}
}
