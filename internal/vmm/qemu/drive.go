package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"

	"banger/internal/vmm"
)

// The numbers of the sets of descriptors by which QEMU gets the files of drives. A drive's own file has the number of
// the drive; what is beneath it and what comes later have numbers behind these, and below stateSet.
const (
	baseSets = 16 // for each drive, from baseSets*(number+1) on
	maxBase  = baseSets - 1
	laterSet = 500
)

// driveNode returns the name of what a drive reads and writes, and with level over 0 of what is beneath it.
func driveNode(drive, level int) string {
	if level == 0 {
		return fmt.Sprintf("drive%d", drive)
	}
	return fmt.Sprintf("drive%d-base%d", drive, level)
}

// driveSet returns the number of the set of descriptors of a node.
func driveSet(drive, level int) int {
	if level == 0 {
		return drive
	}
	return baseSets*(drive+1) + level
}

// driveArguments returns QEMU's arguments for a drive whose descriptors are fds, the lowest layer first. Each node is
// named with its driver and with what is beneath it, so QEMU follows no word of a file.
func driveArguments(number int, d vmm.Drive, fds []int) (a []string) {
	for level := len(d.Base); level >= 0; level-- {
		set := driveSet(number, level)
		// A descriptor of a set is not opened again, so its mode does not matter.
		a = append(a, "-add-fd", fmt.Sprintf("fd=%d,set=%d", fds[level], set))
		driver := "raw"
		if level < len(d.Base) {
			driver = "qcow2"
		}
		opts := fmt.Sprintf("driver=%s,node-name=%s,file.driver=file,file.filename=/dev/fdset/%d,file.locking=off,"+
			"discard=unmap", driver, driveNode(number, level), set)
		if driver == "qcow2" {
			opts += ",file.discard=unmap,backing=" + driveNode(number, level+1)
		}
		if d.ReadOnly || level > 0 {
			opts += ",read-only=on"
		}
		a = append(a, "-blockdev", opts)
	}
	// By default QEMU pauses a guest when the host has no space left, and nothing would report why.
	return append(a, "-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s,werror=report,rerror=report",
		driveNode(number, 0), d.Serial))
}

// Overlay implements vmm.Overlayer.
func (p *process) Overlay(ctx context.Context, serial string, top, frozen *os.File) error {
	if err := p.wantPaused(ctx); err != nil {
		return err
	}
	for i, d := range p.config.Drives {
		if d.Serial == serial {
			return p.overlay(ctx, i, top, frozen)
		}
	}
	return fmt.Errorf("the VM has no drive %s", serial)
}

func (p *process) overlay(ctx context.Context, drive int, top, frozen *os.File) error {
	if p.tops == nil {
		p.tops = map[int]placed{}
	}
	now, ok := p.tops[drive]
	if !ok {
		now = placed{driveNode(drive, 0), driveSet(drive, 0)}
	}
	n := len(p.placed)
	next := placed{fmt.Sprintf("later%d", n), laterSet + n}
	if next.set >= stateSet {
		return errors.New("the VM has had too many overlays since its start; restart it")
	}
	if err := p.addOverlay(ctx, next, top); err != nil {
		return err
	}
	p.placed = append(p.placed, next)
	// QEMU opens the frozen file again for reading, so its set must have such a descriptor.
	if _, err := p.monitor.query(ctx, "add-fd", map[string]any{"fdset-id": now.set}, frozen); err != nil {
		return err
	}
	err := p.monitor.execute(ctx, "blockdev-snapshot", map[string]any{"node": now.node, "overlay": next.node})
	if err != nil {
		return errors.Join(err, p.monitor.execute(ctx, "blockdev-del", map[string]any{"node-name": next.node}))
	}
	p.tops[drive] = next
	p.unused = append(p.unused, now.set, next.set)
	return nil
}

// placed is a node with its set of descriptors.
type placed struct {
	node string
	set  int
}

// addOverlay makes QEMU open an overlay, with nothing beneath it yet.
func (p *process) addOverlay(ctx context.Context, o placed, f *os.File) error {
	if _, err := p.monitor.query(ctx, "add-fd", map[string]any{"fdset-id": o.set}, f); err != nil {
		return err
	}
	err := p.monitor.execute(ctx, "blockdev-add", map[string]any{"driver": "qcow2", "node-name": o.node,
		"discard": "unmap", "backing": nil, "file": map[string]any{"driver": "file",
			"filename": fmt.Sprintf("/dev/fdset/%d", o.set), "locking": "off", "discard": "unmap"}})
	if err != nil {
		return errors.Join(err, p.monitor.execute(ctx, "remove-fd", map[string]any{"fdset-id": o.set}))
	}
	return nil
}

// dropUnused makes QEMU close the descriptors of sets that it has opened again, which it does only while the guest
// runs. Those that stay open after a failure are closed after the next pause.
func (p *process) dropUnused(ctx context.Context) {
	for i, set := range p.unused {
		if p.monitor.execute(ctx, "remove-fd", map[string]any{"fdset-id": set}) != nil {
			p.unused = p.unused[i:]
			return
		}
	}
	p.unused = nil
}
