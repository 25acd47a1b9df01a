package guest

import (
	"context"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// Processes returns the processes of the guest, without the threads of its kernel. There are at most
// banger.MaxProcesses. All that they say may be lies.
func (c Client) Processes(caller context.Context) ([]banger.Process, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	var list []banger.Process
	conn, err := c.send(ctx, Request{Op: OpProcesses})
	if err == nil {
		err = answer(ctx, conn, frame.Response, &list)
	}
	if len(list) > banger.MaxProcesses {
		list = list[:banger.MaxProcesses]
	}
	for i := range list {
		list[i].Command = text.Limit(list[i].Command, banger.MaxCommand)
	}
	return list, unanswered(caller, err)
}
