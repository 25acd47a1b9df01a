package firecracker

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"banger/internal/vmm"
)

// snapshotTimeout bounds the writing or reading of a guest's memory.
const snapshotTimeout = 5 * time.Minute

// manifestOf describes c. Firecracker opens a snapshot's drives and, before 1.16, its vsock
// where they were, so their places belong to it.
func manifestOf(c vmm.Config, v version) (vmm.Manifest, error) {
	m, err := vmm.NewManifest(Driver{}.Name(), v.String(), c)
	m.Private = map[string]string{"vsock": filepath.Join(c.Dir, vsockSocket)}
	for _, d := range c.Drives {
		m.Private["drive "+d.Serial] = d.Path
	}
	return m, err
}

// checkSnapshot refuses a snapshot that c does not fit, before anything is started.
func checkSnapshot(c vmm.Config, v version) error {
	had, err := vmm.ReadManifest(c.Restore)
	if err != nil {
		return err
	}
	has, err := manifestOf(c, v)
	if err == nil {
		err = had.Match(has)
	}
	if err != nil {
		return err
	}
	for what, place := range has.Private {
		if what == "vsock" && v.hasVsockOverride() || had.Private[what] == place {
			continue
		}
		return fmt.Errorf("the snapshot does not fit: Firecracker %s looks for the %s where it was, at %.200q, and not at %s", v, what, had.Private[what], place)
	}
	return nil
}

// Snapshot has Firecracker write itself down, whole.
func (p *process) Snapshot(ctx context.Context, dir string) error {
	return p.snapshot(ctx, dir, snapshotFull)
}

// SnapshotDiff writes only the memory that has changed since the last snapshot; the VM has
// the option track_dirty_pages. No VM goes on from it before it was joined with the one
// before, so it is none of vmm.Snapshotter's.
func (p *process) SnapshotDiff(ctx context.Context, dir string) error {
	return p.snapshot(ctx, dir, snapshotDiff)
}

func (p *process) snapshot(ctx context.Context, dir, kind string) (err error) {
	defer func() {
		if err != nil {
			vmm.DiscardSnapshot(dir)
			err = fmt.Errorf("taking a snapshot: %w", err)
		}
	}()
	m, err := manifestOf(p.config, p.version)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	if err := p.api.call(ctx, http.MethodPut, "/snapshot/create", snapshotParams(dir, kind), nil); err != nil {
		return err
	}
	return vmm.CommitSnapshot(dir, m)
}

func snapshotParams(dir, kind string) SnapshotCreateParams {
	return SnapshotCreateParams{SnapshotType: kind, SnapshotPath: filepath.Join(dir, vmm.SnapshotState), MemFilePath: filepath.Join(dir, vmm.SnapshotRAM)}
}

// restoreRequests are the calls that go on from c's snapshot, in order. The memory is
// mapped copy-on-write, so any number of VMs may have it.
func restoreRequests(c vmm.Config, v version, o options) []request {
	load := SnapshotLoadParams{
		SnapshotPath:    filepath.Join(c.Restore, vmm.SnapshotState),
		MemBackend:      &MemoryBackend{BackendType: backendFile, BackendPath: filepath.Join(c.Restore, vmm.SnapshotRAM)},
		TrackDirtyPages: o.trackDirtyPages,
		ResumeVM:        true,
		ClockRealtime:   v.hasClockRealtime(),
	}
	for i, n := range c.NICs {
		load.NetworkOverrides = append(load.NetworkOverrides, NetworkOverride{IfaceID: ifaceID(i), HostDevName: n.Device})
	}
	if v.hasVsockOverride() {
		load.VsockOverride = &VsockOverride{UDSPath: filepath.Join(c.Dir, vsockSocket)}
	}
	return []request{logRequest(c), put("/snapshot/load", load)}
}
