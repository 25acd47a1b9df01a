package client

import (
	"context"
	"net/url"

	"banger"
	"banger/internal/api/wire"
)

// CreateSnapshot takes a snapshot of a VM. Without a name, it gets that of the VM with a number. withSecrets allows,
// here and below, that memory with secrets is written to the disk.
func (c snapshotClient) CreateSnapshot(ctx context.Context, vm, name string, withSecrets bool) (s banger.Snapshot,
	err error) {
	body := wire.SnapshotRequest{Name: name, WithSecrets: withSecrets}
	return s, c.call(ctx, "POST", vmPath(vm, "snapshots"), nil, body, &s)
}

// Snapshots returns all snapshots, the newest first, or those of one VM if vm is not "".
func (c snapshotClient) Snapshots(ctx context.Context, vm string) (list []banger.Snapshot, err error) {
	q := url.Values{}
	if vm != "" {
		q.Set("vm", vm)
	}
	return list, c.call(ctx, "GET", "/v1/snapshots", q, nil, &list)
}

// Snapshot returns one snapshot by its name or id.
func (c snapshotClient) Snapshot(ctx context.Context, ref string) (s banger.Snapshot, err error) {
	return s, c.call(ctx, "GET", "/v1/snapshots/"+ref, nil, nil, &s)
}

// RemoveSnapshot removes a snapshot. VMs that have gone on from it stay as they are.
func (c snapshotClient) RemoveSnapshot(ctx context.Context, ref string) error {
	return c.call(ctx, "DELETE", "/v1/snapshots/"+ref, nil, nil, nil)
}

// Restore lets a VM go back to one of its snapshots, and keeps its present state as an automatic snapshot.
func (c snapshotClient) Restore(ctx context.Context, vm, snapshot string, withSecrets bool,
	emit banger.Emit) (banger.VM, error) {
	body := wire.SnapshotRequest{Name: snapshot, WithSecrets: withSecrets}
	return vmClient(c).streamVM(ctx, vmPath(vm, "restore"), nil, body, emit)
}

// Fork makes VMs that go on from a VM or a snapshot. After an error it returns those that were made before.
func (c snapshotClient) Fork(ctx context.Context, f banger.Fork, emit banger.Emit) ([]banger.VM, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	e, err := c.stream(ctx, "/v1/forks", nil, f, emit)
	return e.VMs, err
}

// Keep puts a fork in the place of the VM that it was made of, whose state becomes an automatic snapshot.
func (c snapshotClient) Keep(ctx context.Context, fork string, withSecrets bool, emit banger.Emit) (banger.VM,
	error) {
	return vmClient(c).streamVM(ctx, vmPath(fork, "keep"), secretsQuery(withSecrets), nil, emit)
}

// RemoveForks removes the forks of a VM, and returns those.
func (c snapshotClient) RemoveForks(ctx context.Context, vm string) (removed []banger.VM, err error) {
	return removed, c.call(ctx, "POST", vmPath(vm, "forks/prune"), nil, nil, &removed)
}
