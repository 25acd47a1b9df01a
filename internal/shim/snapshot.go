package shim

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"banger"
)

// Snapshot writes a running VM to SnapDir in its directory, and puts an overlay on its disk at the same instant. The
// VM goes on, and its streams stay. paused is how long it stood still. The caller makes SnapDir before, and takes or
// removes it afterwards. After an error, Status says which file the disk writes to. The shim does not stop when ctx
// ends.
func (c Client) Snapshot(ctx context.Context, s Snapshot) (paused time.Duration, err error) {
	data, err := json.Marshal(s) // an earlier shim writes the VM down also for a snapshot of the disk
	if err != nil {
		return 0, err
	}
	st, err := c.exchange(ctx, CallSnapshot+" "+string(data), nil)
	return time.Duration(st.Paused) * time.Millisecond, err
}

// Settled is like Status, but first waits until no snapshot is being taken. It returns an error of CodeConflict if the
// shim is of a banger that took none.
func (c Client) Settled(ctx context.Context) (Status, error) {
	st, err := c.exchange(ctx, CallSettled, nil)
	if strings.HasPrefix(st.Error, "unknown call") {
		err = banger.Errorf(banger.CodeConflict,
			"an earlier banger has started the VM, and took no snapshots of VMs that run").
			WithHint("restart the VM, or suspend it")
	}
	return st, err
}
