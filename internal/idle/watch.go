package idle

import (
	"cmp"
	"context"
	"sync"
	"time"
)

// VM is a running VM with a time of idleness.
type VM struct {
	ID       string
	After    time.Duration
	Emulated bool
}

// Watcher parks VMs that are idle. The caller sets its fields before Run.
type Watcher struct {
	Tick time.Duration // between two looks; 0 means a minute
	List func() []VM   // the VMs to look at now
	// Look takes a sample of a VM. Without one, the VM counts as used.
	Look func(ctx context.Context, id string) (Sample, error)
	// Park does what the VM's user wants, unless the VM has changed. Just before, it takes a sample, and gives up if
	// still returns false. Run does not wait for its end.
	Park func(id string, still func(Sample) bool)
}

// lookTime bounds one look at a VM.
const lookTime = 15 * time.Second

// Run looks at the VMs until ctx ends. The idleness of each begins with its first look, and anew after Park.
func (w Watcher) Run(ctx context.Context) {
	every := cmp.Or(w.Tick, time.Minute)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var parking sync.WaitGroup
	defer parking.Wait()
	meters := map[string]*meter{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, idle := w.look(ctx, meters)
		for _, id := range idle {
			m := now[id]
			delete(now, id)
			parking.Go(func() { w.Park(id, func(s Sample) bool { return m.still(s, every) }) })
		}
		meters = now
	}
}

// look takes a sample of each VM. It returns the meters of those that have answered, and which are idle for long
// enough.
func (w Watcher) look(ctx context.Context, meters map[string]*meter) (now map[string]*meter, idle []string) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	now = map[string]*meter{}
	var mu sync.Mutex
	var looks sync.WaitGroup
	for _, vm := range w.List() {
		m := meters[vm.ID]
		if m == nil {
			m = &meter{share: share(vm.Emulated)}
		}
		looks.Go(func() {
			s, err := w.Look(ctx, vm.ID)
			if err != nil {
				return
			}
			long := m.add(s) >= vm.After
			mu.Lock()
			defer mu.Unlock()
			now[vm.ID] = m
			if long {
				idle = append(idle, vm.ID)
			}
		})
	}
	looks.Wait()
	return now, idle
}
