// Package view holds a VM as all goroutines may see it. It must not know what changes a VM, nor why.
package view

import (
	"sync"

	"banger"
	"banger/internal/feed"
	"banger/internal/parking"
)

// View is what all goroutines may see of a VM. Only the VM's owner changes it, so what the owner reads stays true. Each
// change goes to a feed.
type View struct {
	feed *feed.Feed[banger.Change]

	mu        sync.Mutex
	vm        banger.VM
	changed   chan struct{} // closed and replaced at each change
	gone      bool          // removed
	committed bool          // its creation has succeeded
}

// New returns the view of a VM that is new to f.
func New(vm banger.VM, f *feed.Feed[banger.Change]) *View {
	vm.Due = parking.Due(vm)
	f.Publish(banger.Change{VM: &vm})
	return &View{feed: f, vm: vm, changed: make(chan struct{})}
}

// ID returns the id of the VM, which never changes.
func (v *View) ID() string { return v.vm.ID }

// Snapshot returns the VM as it is now.
func (v *View) Snapshot() banger.VM {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.vm
}

// See returns the VM, whether it was removed, and a channel that is closed at the next change.
func (v *View) See() (vm banger.VM, gone bool, changed <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.vm, v.gone, v.changed
}

// Update changes the VM in memory and wakes all waiters.
func (v *View) Update(f func(*banger.VM)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(&v.vm)
	v.vm.Due = parking.Due(v.vm)
	now := v.vm
	v.feed.Publish(banger.Change{VM: &now})
	v.wakeLocked()
}

func (v *View) wakeLocked() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// IsCommitted reports whether the creation of the VM has succeeded.
func (v *View) IsCommitted() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.committed
}

// SetCommitted says that the creation of the VM has succeeded.
func (v *View) SetCommitted() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.committed = true
}

// IsGone reports whether the VM was removed.
func (v *View) IsGone() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gone
}

// SetGone says that the VM was removed, and wakes all waiters.
func (v *View) SetGone() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone = true
	v.feed.Publish(banger.Change{Removed: v.vm.ID})
	v.wakeLocked()
}
