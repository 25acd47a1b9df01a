package qemu

import (
	"os"
	"testing"

	"banger/internal/vmm"
)

// TestEachDescriptorIsWhereItsNumberSays, also for a VM that starts from a shared snapshot, of whose files QEMU gets
// only the memory.
func TestEachDescriptorIsWhereItsNumberSays(t *testing.T) {
	file := func(name string) *os.File { return os.NewFile(^uintptr(0)>>1, name) }
	for _, from := range []*vmm.Saved{nil, {Manifest: file("manifest"), State: file("state"), Memory: file("from")}} {
		c := vmm.Config{KernelFile: file("kernel"), InitrdFile: file("initrd"), From: from,
			Drives: []vmm.Drive{{File: file("first"), Base: []vmm.Layer{{File: file("beneath")}}}, {File: file("second")}},
			NICs:   []vmm.NIC{{Socket: file("socket")}, {Tap: file("tap")}}}
		d, files := numbers(c, 10), handed(c, file("monitor"), file("memory"))
		for n, want := range map[int]string{d.monitor: "monitor", d.kernel: "kernel", d.initrd: "initrd",
			d.memory: "memory", d.drives[0][0]: "first", d.drives[0][1]: "beneath", d.drives[1][0]: "second",
			d.nics[0]: "socket", d.nics[1]: "tap"} {
			if n-10 >= len(files) || files[n-10].Name() != want {
				t.Errorf("descriptor %d is not the %s", n, want)
			}
		}
		if len(files) != 9 {
			t.Errorf("%d files are handed over", len(files))
		}
	}
}
