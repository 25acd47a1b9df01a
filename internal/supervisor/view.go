package supervisor

import (
	"sync"

	"banger"
	"banger/internal/feed"
	"banger/internal/parking"
)

// view is what all goroutines may see of a VM. Only the VM's owner changes it, so what the owner reads stays true. Each
// change goes to the supervisor's feed.
type view struct {
	feed *feed.Feed[banger.Change]

	mu        sync.Mutex
	vm        banger.VM
	changed   chan struct{} // closed and replaced at each change
	gone      bool          // removed
	committed bool          // its creation has succeeded
}

func newView(vm banger.VM, f *feed.Feed[banger.Change]) view {
	vm.Due = parking.Due(vm)
	f.Publish(banger.Change{VM: &vm})
	return view{feed: f, vm: vm, changed: make(chan struct{})}
}

func (v *view) id() string { return v.vm.ID } // never changes

func (v *view) snapshot() banger.VM {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.vm
}

// see returns the VM, whether it was removed, and a channel that is closed at the next change.
func (v *view) see() (vm banger.VM, gone bool, changed <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.vm, v.gone, v.changed
}

// update changes the VM in memory and wakes all waiters.
func (v *view) update(f func(*banger.VM)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(&v.vm)
	v.vm.Due = parking.Due(v.vm)
	now := v.vm
	v.feed.Publish(banger.Change{VM: &now})
	v.wakeLocked()
}

func (v *view) wakeLocked() {
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *view) isCommitted() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.committed
}

func (v *view) setCommitted() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.committed = true
}

func (v *view) isGone() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gone
}

func (v *view) setGone() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone = true
	v.feed.Publish(banger.Change{Removed: v.vm.ID})
	v.wakeLocked()
}
