package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"banger/internal/idle"
	"banger/internal/parking"
)

// parker parks VMs that are idle.
type parker struct{ *Supervisor }

func (p parker) watcher() idle.Watcher {
	return idle.Watcher{Tick: p.opts.IdleTick, List: p.candidates, Look: p.look, Park: p.park}
}

// all returns the machines of all VMs.
func (p parker) all() []*machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.machines))
}

func (p parker) candidates() (list []idle.VM) {
	for _, m := range p.all() {
		if vm := m.Snapshot(); parking.WhenIdle(vm) != "" {
			list = append(list, idle.VM{ID: vm.ID, After: vm.Spec.Idle.After(), Emulated: !p.opts.VMMs.KVM})
		}
	}
	return list
}

func (p parker) look(ctx context.Context, id string) (idle.Sample, error) {
	st, err := p.shim(id).Stats(ctx)
	if err != nil {
		return idle.Sample{}, err
	}
	use, err := st.VMM.Usage()
	return idle.Sample{At: time.Now(), Process: fmt.Sprint(st.VMM), Moved: st.Stats.Moved, CPU: use.CPUTime}, err
}

func (p parker) park(id string, still func(idle.Sample) bool) {
	m, err := p.find(id)
	if err != nil {
		return // it was removed
	}
	err = m.change(m.ctx, func(context.Context) error {
		vm := m.Snapshot()
		s, err := p.look(m.ctx, id)
		action := parking.WhenIdle(vm)
		if err != nil || action == "" || !m.plans.settled || !still(s) {
			return err
		}
		return later{m}.carryOut(action, "it was idle for "+vm.Spec.Idle.After().String())
	})
	m.warn("the idle VM was not parked", err)
}
