package guest

import (
	"context"
	"net"
	"time"

	"banger"
	"banger/internal/frame"
)

// SSH returns a stream that carries the SSH protocol of the agent's server. The caller must close the stream, which
// hangs up the programs that it started.
func (c Client) SSH(caller context.Context, r banger.SSH) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	conn, err := c.send(ctx, Request{Op: OpSSH, SSH: &r})
	if err != nil {
		return nil, unanswered(caller, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	t, p, err := frame.NewReader(conn).Next() // reads no byte after the frame
	if !stop() && err == nil {
		err = ctx.Err()
	}
	switch {
	case ctx.Err() != nil:
		err = unanswered(caller, ctx.Err())
	case err != nil:
		err = banger.Errorf(banger.CodeGuest, "the agent did not answer: %w", err)
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
