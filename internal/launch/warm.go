package launch

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"banger"
	"banger/internal/disk"
	"banger/internal/guest"
	"banger/internal/plan"
)

// fromTemplate starts the VM from the template of its shape, if there is one, and returns whether it did. If that
// fails, the template is dropped, and nothing of the start is left.
func (b Start) fromTemplate(ctx context.Context, p plan.Plan) (done bool, err error) {
	if b.Warm == nil {
		return false, nil
	}
	t, err := b.Warm.Find(p, b.VM, b.Fresh)
	if t == nil || err != nil {
		return false, err
	}
	defer t.Close()
	p.Shim.VM.Restore, p.Shim.VM.Shared, p.Shim.VM.From = t.ID, true, t.Saved
	up := &ups{Machine: b.Machine}
	warm := b
	warm.Machine = up
	if t.Disk != nil {
		err = disk.Replace(b.Plans.Dirs.Disk(b.VM.ID, ""), t.Disk)
	}
	if err == nil {
		err = warm.first(ctx, p)
	}
	if err == nil {
		b.Watch.Lap("warm")
		b.Machine.Update(func(vm *banger.VM) { vm.Template = t.ID })
		return true, nil
	}
	if ctx.Err() != nil {
		return false, err
	}
	b.Warm.Drop(t.ID, err)
	if up.up {
		if err := b.Shim.Kill(ctx); err != nil {
			return false, err
		}
		b.awaitDown(ctx)
	}
	return false, ctx.Err()
}

// awaitDown takes the end of the VMM, unless a wait before has taken it.
func (b Start) awaitDown(ctx context.Context) {
	select {
	case <-b.Machine.Ended():
		b.Machine.Down()
	case <-ctx.Done():
	}
}

// ups notes whether a VMM was started and has not ended.
type ups struct {
	Machine
	up bool
}

func (u *ups) Up()   { u.up = true; u.Machine.Up() }
func (u *ups) Down() { u.up = false; u.Machine.Down() }

func newSeed() []byte {
	seed := make([]byte, guest.MinSeed)
	rand.Read(seed)
	return seed
}

// machineID returns a VM's machine-id(5), which stays the same. It is derived from its host key, which no other VM has.
func machineID(hostKey string) string {
	sum := sha256.Sum256([]byte("banger machine-id\n" + hostKey))
	return hex.EncodeToString(sum[:16])
}
