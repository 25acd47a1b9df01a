package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
)

// agentDevice is QEMU's name for the host's side of the agent's virtio-serial port. agentSocket is
// its name for the socket that is connected there.
const (
	agentDevice = "agent"
	agentSocket = "agent-socket"
)

// channel is the latest connection to the agent's port.
type channel struct {
	mu sync.Mutex
	// held keeps the connection open after its user has closed it. The connection of a paused guest
	// must not end: QEMU would not tell the guest, and would never again read what the guest writes.
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

// OpenChannel connects to the agent's virtio-serial port. There is one connection at a time: a new
// connection replaces the old one, and the guest sees the port close and open again. While the
// guest is paused, OpenChannel waits.
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

// plugIn connects a socket to the port. It waits until the guest runs, because QEMU cannot change
// the port of a paused guest.
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
			case <-changed: // the guest was paused when we tried
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

// change disconnects the port, which the guest sees, and connects socket to it.
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
