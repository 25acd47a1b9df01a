package network

import (
	"fmt"
	"net"
	"os"

	"banger"
)

// Hold stops to take connections and datagrams from the sockets of all forwards. What comes waits in the sockets, and
// nothing is refused. Connections that were taken before go on. GoOn undoes it. After an error nothing is held.
func (g *Gate) Hold() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		return nil
	}
	g.held = true
	for _, p := range g.forwards {
		file, err := p.copy()
		if err != nil {
			g.goOn()
			return fmt.Errorf("holding the forward %s: %w", p.Forward, err)
		}
		p.held = file
		p.pause()
		p.copy, p.pause = nil, nil
	}
	return nil
}

// GoOn takes connections and datagrams again. A forward for which that fails has ended.
func (g *Gate) GoOn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.goOn()
}

func (g *Gate) goOn() {
	g.held = false
	for f, p := range g.forwards {
		if p.held == nil {
			continue
		}
		if err := g.serve(p); err != nil {
			g.log.Warn("a forward has ended", "forward", f, "err", err)
			p.end()
			delete(g.forwards, f)
		}
	}
}

// Take returns the sockets of a gate that is held, and takes their forwards out of force. The caller owns them.
func (g *Gate) Take() []*os.File {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []*os.File
	for f, p := range g.forwards {
		if p.held != nil {
			list = append(list, p.held)
			p.held = nil
			p.end()
			delete(g.forwards, f)
		}
	}
	return list
}

// Carry connects a connection, which was accepted elsewhere, to the guest as if it had come to the socket of f. It owns
// file. Whoever accepted it has checked its owner.
func (g *Gate) Carry(f banger.Forward, file *os.File) error {
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("it is not a connection: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.forwards[f]
	switch {
	case g.closed:
		Reset(conn)
		return errClosed
	case p == nil:
		Reset(conn)
		return fmt.Errorf("there is no forward %s", f)
	case !g.carry(p, conn):
		Reset(conn)
		return fmt.Errorf("the forward %s has no room for a connection", f)
	}
	return nil
}
