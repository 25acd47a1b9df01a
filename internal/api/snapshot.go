package api

import (
	"context"
	"net/http"

	"banger"
	"banger/internal/api/wire"
)

// Snapshots takes snapshots of VMs, and makes VMs that go on from them. A snapshot is named by its name, its id or a
// unique prefix of that.
type Snapshots interface {
	// withSecrets allows, also below, that memory with secrets is written to the disk.
	Create(ctx context.Context, vm, name string, withSecrets bool) (banger.Snapshot, error)
	// List returns all snapshots, or those of one VM if vm is not "".
	List(vm string) ([]banger.Snapshot, error)
	Get(ref string) (banger.Snapshot, error)
	Remove(ref string) (banger.Snapshot, error)
	// Restore lets a VM go back to one of its snapshots, and keeps its present state as an automatic snapshot.
	Restore(ctx context.Context, vm, snapshot string, withSecrets bool, emit banger.Emit) (banger.VM, error)
	// Fork makes VMs that go on from a VM or a snapshot. After an error it returns those that it has made.
	Fork(ctx context.Context, f banger.Fork, emit banger.Emit) ([]banger.VM, error)
	// Keep puts a fork in the place of the VM that it was made of, whose state becomes an automatic snapshot.
	Keep(ctx context.Context, fork string, withSecrets bool, emit banger.Emit) (banger.VM, error)
	// RemoveForks removes the forks of a VM, and returns those.
	RemoveForks(ctx context.Context, vm string) ([]banger.VM, error)
}

var snapshotRoutes = []route{
	{"POST", "/v1/vms/{vm}/snapshots", createSnapshot, "createSnapshot",
		"Take a snapshot of a VM: its disk, and its memory if it runs or is suspended. A VM that runs goes on. Without a " +
			"name, it gets that of the VM with a number", nil, wire.SnapshotRequest{}, banger.Snapshot{}},
	{"POST", "/v1/vms/{vm}/restore", restoreVM, "restoreVM",
		"Let a VM go back to one of its snapshots. Its present state becomes an automatic snapshot. With memory, the VM " +
			"then goes on; without, it is stopped", nil, wire.SnapshotRequest{}, progress{}},
	{"GET", "/v1/snapshots", listSnapshots, "listSnapshots", "All snapshots, the newest first",
		[]parameter{{"vm", "only those of this VM", "", false}}, nil, []banger.Snapshot{}},
	{"GET", "/v1/snapshots/{snapshot}", getSnapshot, "getSnapshot", "One snapshot by its name or id", nil, nil,
		banger.Snapshot{}},
	{"DELETE", "/v1/snapshots/{snapshot}", removeSnapshot, "removeSnapshot",
		"Remove a snapshot. VMs that have gone on from it stay as they are", nil, nil, nil},
	{"POST", "/v1/forks", forkVM, "forkVM",
		"Make VMs that go on from one instant of a VM or from a snapshot, each with an identity of its own. Ports that " +
			"were published move to free ones. The last line has the VMs", nil, banger.Fork{}, progress{}},
	{"POST", "/v1/vms/{vm}/keep", keepFork, "keepFork",
		"Put a fork in the place of the VM that it was made of: under its name, with its published ports. The state of " +
			"that VM becomes an automatic snapshot", []parameter{paramSecrets}, nil, progress{}},
	{"POST", "/v1/vms/{vm}/forks/prune", removeForks, "removeForks", "Remove the forks of a VM, with all that is in them",
		nil, nil, []banger.VM{}},
}

func createSnapshot(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.SnapshotRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	made, err := s.Snapshots.Create(req.Context(), req.PathValue("vm"), body.Name, body.WithSecrets)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, made)
}

func restoreVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body wire.SnapshotRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Snapshots.Restore(req.Context(), req.PathValue("vm"), body.Name, body.WithSecrets, emit)
		return banger.Event{VM: &vm}, err
	})
}

func listSnapshots(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w, func() ([]banger.Snapshot, error) { return s.Snapshots.List(req.URL.Query().Get("vm")) })
}

func getSnapshot(s *Server, w http.ResponseWriter, req *http.Request) error {
	got, err := s.Snapshots.Get(req.PathValue("snapshot"))
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, got)
}

func removeSnapshot(s *Server, w http.ResponseWriter, req *http.Request) error {
	if _, err := s.Snapshots.Remove(req.PathValue("snapshot")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func forkVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	var f banger.Fork
	if err := wire.Decode(req, &f); err != nil {
		return err
	}
	if err := f.Check(); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		made, err := s.Snapshots.Fork(req.Context(), f, emit)
		return banger.Event{VMs: hidden(made)}, err
	})
}

func keepFork(s *Server, w http.ResponseWriter, req *http.Request) error {
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Snapshots.Keep(req.Context(), req.PathValue("vm"), withSecrets(req), emit)
		return banger.Event{VM: &vm}, err
	})
}

func removeForks(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w, func() ([]banger.VM, error) {
		removed, err := s.Snapshots.RemoveForks(req.Context(), req.PathValue("vm"))
		return hidden(removed), err
	})
}
