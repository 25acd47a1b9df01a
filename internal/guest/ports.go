package guest

import (
	"context"
	"encoding/json"
	"net"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// MaxListeners is the maximum number of listeners that an agent may report.
const MaxListeners = 1024

// WatchPorts calls tell with the listening sockets of the guest, now and after each change, until ctx ends or the
// agent goes away. What the guest reports is bounded, but may be false.
func (c Client) WatchPorts(ctx context.Context, tell func([]banger.Listener)) error {
	conn, err := c.send(ctx, Request{Op: OpPorts})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	frames := frame.NewReader(conn)
	for {
		t, p, err := frames.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return banger.Errorf(banger.CodeGuest, "the agent tells its ports no more: %w", err)
		}
		if t == frame.Error {
			return agentError(p)
		}
		var list []banger.Listener
		if err := json.Unmarshal(p, &list); err != nil || t != frame.Response || len(list) > MaxListeners {
			return banger.Errorf(banger.CodeGuest, "the agent's list of ports is broken")
		}
		for i, l := range list { // drop the fields that only the host may set
			list[i] = banger.Listener{Protocol: text.Limit(l.Protocol, maxProcess), Address: text.Limit(l.Address, maxProcess),
				Port: l.Port, Process: text.Limit(l.Process, maxProcess), PID: l.PID}
		}
		tell(list)
	}
}

// maxProcess is the maximum number of characters of the name of a process (the kernel's TASK_COMM_LEN is 16).
const maxProcess = 64

// Owner is a process of the guest. Both fields may be lies.
type Owner struct {
	Process string `json:"process"`
	PID     int    `json:"pid"`
}

// Owner asks which process has the socket of a protocol, tcp or udp, that is bound to a port. It returns no error if
// there is none.
func (c Client) Owner(ctx context.Context, protocol string, port uint16) (Owner, error) {
	var o Owner
	conn, err := c.send(ctx, Request{Op: OpOwner, Protocol: protocol, Port: port})
	if err == nil {
		err = answer(ctx, conn, frame.Response, &o)
	}
	o.Process = text.Limit(o.Process, maxProcess)
	return o, err
}

// DialLocal connects to a TCP port of the guest's loopback. The caller must close the stream.
func (c Client) DialLocal(ctx context.Context, port uint16) (net.Conn, error) {
	conn, err := c.send(ctx, Request{Op: OpDial, Port: port})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	t, p, err := frame.NewReader(conn).Next()
	if !stop() {
		err = ctx.Err()
	}
	switch {
	case err != nil:
	case t == frame.Error:
		err = agentError(p)
	case t != frame.Response:
		err = banger.Errorf(banger.CodeGuest, "the agent answered with frame %d instead of %d", t, frame.Response)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
