package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
)

// agentDevice is QEMU's name of the host's side of the agent's virtio-serial port, and
// agentSocket that of the socket which is put there.
const (
	agentDevice = "agent"
	agentSocket = "agent-socket"
)

// channel is the connection to the agent's port that was opened last.
type channel struct {
	mu sync.Mutex
	// held keeps the connection when its user has closed it: that of a guest which is paused must
	// not end, for QEMU would not tell the guest, and would never again take what that writes.
	held net.Conn
}

func (c *channel) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold(nil)
}

func (c *channel) hold(conn net.Conn) {
	if c.held != nil {
		c.held.Close()
	}
	c.held = conn
}

// OpenChannel connects to the agent's virtio-serial port. There is one connection at a time: a
// new one takes the place of the old one, and the guest sees the port close and open again.
// While the guest is paused it waits.
func (p *process) OpenChannel(ctx context.Context) (net.Conn, error) {
	p.channel.mu.Lock()
	defer p.channel.mu.Unlock()
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := copyOf(ours)
	if err == nil {
		err = p.plugIn(ctx, theirs)
	}
	if err != nil {
		ours.Close()
		if conn != nil {
			conn.Close()
		}
		return nil, fmt.Errorf("connecting to the agent's channel: %w", err)
	}
	p.channel.hold(ours)
	return conn, nil
}

func copyOf(conn *net.UnixConn) (net.Conn, error) {
	f, err := conn.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileConn(f)
}

// plugIn puts a socket into the port as soon as the guest runs: QEMU changes no port of one that
// is paused.
func (p *process) plugIn(ctx context.Context, socket *os.File) error {
	for {
		_, changed := p.monitor.progress()
		err := p.change(ctx, socket)
		if err == nil {
			return nil
		}
		running, serr := p.running(ctx)
		if serr != nil {
			return err
		}
		if running {
			select {
			case <-changed: // it was paused when we tried
				continue
			default:
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.monitor.gone:
			return p.monitor.err
		}
	}
}

// change takes the socket that is there out of the port, which the guest sees, and puts another
// one in.
func (p *process) change(ctx context.Context, socket *os.File) error {
	null := map[string]any{"type": "null", "data": map[string]any{}}
	if err := p.monitor.execute(ctx, "chardev-change", map[string]any{"id": agentDevice, "backend": null}); err != nil {
		return err
	}
	if _, err := p.monitor.query(ctx, "getfd", map[string]any{"fdname": agentSocket}, socket); err != nil {
		return err
	}
	backend := map[string]any{"type": "socket", "data": map[string]any{"server": false,
		"addr": map[string]any{"type": "fd", "data": map[string]any{"str": agentSocket}}}}
	return p.monitor.execute(ctx, "chardev-change", map[string]any{"id": agentDevice, "backend": backend})
}
