package branch

import (
	"context"

	"banger"
	"banger/internal/snapshot"
)

// Still returns the snapshot that ref names, or one without memory of the VM that ref names. The caller calls release
// when it needs the snapshot no longer.
func (b *Branches) Still(ctx context.Context, ref string, emit banger.Emit) (w snapshot.Whole, release func(),
	err error) {
	w, own, err := b.source(ctx, ref, kind{disk: true}, emit)
	if err != nil || !own {
		return w, func() {}, err
	}
	return w, func() {
		if _, err := b.Remove(w.ID); err != nil {
			b.Log.Warn("a snapshot that is needed no longer was not removed", "snapshot", w.Name, "err", err)
		}
	}, nil
}

// Origin returns the layer that a snapshot's disk has come from, with a name for it in words: that of the snapshot
// before, or that of the VM of which it is a fork. Without one, the layer is "": the disk has come from its image.
func (b *Branches) Origin(w snapshot.Whole) (layer, words string) {
	if before, err := b.History.Find(w.Parent); err == nil && before.ID == w.Parent {
		return before.Layer, "snapshot " + before.Name
	}
	if l, err := b.Layers.Foreign(w.Layer, w.VM); err == nil {
		words = "the VM of which it is a fork"
		if vm, err := b.VMs.Get(l.VM); err == nil {
			words = "VM " + vm.Name + " at the time of the fork"
		}
		return l.ID, words
	}
	return "", "image " + w.Image
}
