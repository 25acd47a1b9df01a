package qemu

import (
	"context"
	"fmt"
	"os"

	"banger/internal/vmm"
)

const SparePorts = sparePorts

// FillSpare puts a disk into a spare port of a VM that runs.
func FillSpare(ctx context.Context, p vmm.Process, i int, disk *os.File) error {
	m, set, name := p.(*process).monitor, 2000+i, fmt.Sprint("more", i)
	if _, err := m.query(ctx, "add-fd", map[string]any{"fdset-id": set}, disk); err != nil {
		return err
	}
	file := map[string]any{"driver": "file", "filename": fmt.Sprintf("/dev/fdset/%d", set), "locking": "off"}
	err := m.execute(ctx, "blockdev-add", map[string]any{"driver": "raw", "node-name": name, "file": file})
	if err != nil {
		return err
	}
	return m.execute(ctx, "device_add", map[string]any{"driver": "virtio-blk-pci", "id": name, "bus": sparePort(i),
		"drive": name})
}
