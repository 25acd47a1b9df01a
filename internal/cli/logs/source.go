package logs

import (
	"context"
	"io"

	"banger"
	"banger/internal/api/client"
)

// source is one output of a VM.
type source struct {
	vm   string // what the user calls the VM
	key  key    // the output's place in a file of cursors; its VM is "" if no cursor is wanted
	open opener
}

// opener opens an output. If apart is true, it is frames of frame.Stdout and frame.Stderr, each behind a frame.Stamp
// unless an earlier banger sends them. If not, it is a console. The caller closes it.
type opener func(ctx context.Context, v banger.LogView) (r io.ReadCloser, apart bool, err error)

// mainOutput is the name of the main command's output in a file of cursors.
const mainOutput = "main"

// source returns what o shows of a VM.
func (o options) source(client *client.Client, vm, id string) source {
	s := source{vm: vm, key: key{id, mainOutput}}
	s.open = func(ctx context.Context, v banger.LogView) (io.ReadCloser, bool, error) {
		return client.Output(ctx, vm, v)
	}
	if o.session != "" {
		s.key.output = "session:" + o.session
		s.open = func(ctx context.Context, v banger.LogView) (io.ReadCloser, bool, error) {
			r, err := client.SessionOutput(ctx, vm, o.session, v)
			return r, true, err
		}
	}
	if o.console {
		s.open = func(ctx context.Context, v banger.LogView) (io.ReadCloser, bool, error) {
			r, err := client.Logs(ctx, vm, v.Tail, v.Follow)
			return r, false, err
		}
	}
	return s
}
