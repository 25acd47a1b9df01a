package supervisor

import (
	"context"
	"time"

	"banger"
)

// Stats reads what a running VM has used since it was started.
func (s *Supervisor) Stats(ctx context.Context, ref string) (banger.Stats, error) {
	m, err := s.find(ref)
	if err != nil {
		return banger.Stats{}, err
	}
	vm := m.snapshot()
	if vm.State != banger.StateRunning && vm.State != banger.StatePaused {
		return banger.Stats{}, stateError("see the stats of", vm, "start it: banger start "+vm.Name)
	}
	st, err := s.shim(vm.ID).Stats(ctx)
	if err != nil {
		return banger.Stats{}, banger.Errorf(banger.CodeUnavailable, "cannot read the stats of VM %s: %w", vm.Name, err)
	}
	use, err := st.VMM.Usage()
	if err != nil {
		return banger.Stats{}, banger.Errorf(banger.CodeConflict, "VM %s has just ended: %w", vm.Name, err)
	}
	got := banger.Stats{ID: vm.ID, Name: vm.Name, At: time.Now().UTC(), CPUTime: use.CPUTime, CPUs: vm.Spec.CPUs, Memory: use.Memory, MemoryLimit: vm.Spec.Memory,
		DiskRead: st.Stats.DiskRead, DiskWritten: st.Stats.DiskWritten, NetIn: st.Stats.NetIn, NetOut: st.Stats.NetOut}
	if s.bridge != nil && banger.OnBridge(vm.Spec.Network) {
		got.NetIn, got.NetOut, err = s.bridge.Traffic(vm.ID)
	}
	return got, err
}
