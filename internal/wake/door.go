// Package wake lets suspended VMs go on when somebody connects to them. While a VM is suspended, its door holds the
// listening sockets that the VM's shim has left: connections wait there, and nothing is refused. When the VM goes on,
// its new shim gets the sockets and the connections.
//
// The package must not know how a VM goes on, nor its state, and it stores nothing.
package wake

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/network"
)

// maxHeld is the maximum number of connections that a door has accepted. More wait in the kernel.
const maxHeld = 64

// Pauses after a failure to wake the VM.
const (
	firstPause = time.Second
	longPause  = time.Minute
)

// Door waits for connections to one suspended VM. Its methods may be called concurrently.
type Door struct {
	log    *slog.Logger
	places chan struct{} // one for each connection that is held
	knocks chan struct{} // holds a value when the VM must wake

	mu     sync.Mutex // readers of ports do not take it, because hold waits for them
	ports  map[banger.Forward]*port
	stop   context.CancelFunc // ends the reading from the ports; nil while the door is on hold
	wg     sync.WaitGroup     // of the reading
	closed bool

	heldMu sync.Mutex
	held   []waiter
}

// waiter is a connection that waits for the VM.
type waiter struct {
	at   banger.Forward
	conn *os.File
}

// NewDoor returns an open door without ports.
func NewDoor(log *slog.Logger) *Door {
	d := &Door{log: log, places: make(chan struct{}, maxHeld), knocks: make(chan struct{}, 1),
		ports: map[banger.Forward]*port{}}
	d.GoOn()
	return d
}

// Add waits for connections and datagrams at a socket, which must be that of the forward. Unless admit is nil, only
// what it admits wakes the VM. The caller keeps file.
func (d *Door) Add(f banger.Forward, file *os.File, admit network.Admit) error {
	p, err := newPort(f, file, admit)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.ports[f] != nil {
		p.file.Close()
		return errors.New("the door is closed, or has the port already")
	}
	d.ports[f] = p
	on := d.stop != nil
	if on {
		d.hold()
		d.goOn()
	}
	return nil
}

// Remove closes a port. Connections to it that are held stay.
func (d *Door) Remove(f banger.Forward) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.ports[f]
	if p == nil {
		return
	}
	on := d.stop != nil
	d.hold()
	delete(d.ports, f)
	p.file.Close()
	if on {
		d.goOn()
	}
}

// Hold accepts no more connections until GoOn. New ones wait in the sockets.
func (d *Door) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold()
}

// hold is Hold. d.mu is held.
func (d *Door) hold() {
	if d.stop == nil {
		return
	}
	d.stop()
	d.stop = nil
	for _, p := range d.ports {
		p.file.SetReadDeadline(time.Unix(1, 0))
	}
	d.wg.Wait()
}

// GoOn undoes Hold.
func (d *Door) GoOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop == nil && !d.closed {
		d.goOn()
	}
}

func (d *Door) goOn() {
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	for _, p := range d.ports {
		p.ready()
		d.wg.Go(func() { d.listen(ctx, p) })
	}
}

// Close closes the ports and resets the connections that wait.
func (d *Door) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold()
	d.closed = true
	for f, p := range d.ports {
		p.file.Close()
		delete(d.ports, f)
	}
	d.calm()
	d.refuse()
}

// calm forgets that somebody has knocked.
func (d *Door) calm() {
	select {
	case <-d.knocks:
	default:
	}
}

// Run calls wake once for all connections that wait, until ctx ends. If wake fails, Run refuses these connections, and
// waits for others.
func (d *Door) Run(ctx context.Context, wake func(context.Context) error) {
	for pause := firstPause; ; {
		select {
		case <-ctx.Done():
			return
		case <-d.knocks:
		}
		err := wake(ctx)
		if err == nil || ctx.Err() != nil {
			pause = firstPause
			continue
		}
		d.log.Warn("the VM was not woken", "err", err)
		d.dismiss()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
	}
}

// Knock wakes the VM without a connection.
func (d *Door) Knock() {
	select {
	case d.knocks <- struct{}{}:
	default:
	}
}

// dismiss refuses all that wait.
func (d *Door) dismiss() {
	d.calm()
	d.refuse()
	d.mu.Lock()
	defer d.mu.Unlock()
	on := d.stop != nil
	d.hold()
	for _, p := range d.ports {
		p.drop()
	}
	if on {
		d.goOn()
	}
}

// refuse resets the connections that are held.
func (d *Door) refuse() {
	for _, w := range d.take() {
		reset(w.conn)
	}
}

// take returns the connections that are held. The caller owns them.
func (d *Door) take() []waiter {
	d.heldMu.Lock()
	defer d.heldMu.Unlock()
	list := d.held
	d.held = nil
	for range list {
		<-d.places
	}
	return list
}

// Sockets returns copies of the sockets of a door on hold.
func (d *Door) Sockets() (map[banger.Forward]*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := map[banger.Forward]*os.File{}
	for f, p := range d.ports {
		file, err := duplicate(p.file)
		if err != nil {
			for _, f := range list {
				f.Close()
			}
			return nil, err
		}
		list[f] = file
	}
	return list, nil
}

// listen waits for somebody at a port until ctx ends.
func (d *Door) listen(ctx context.Context, p *port) {
	for p.await() && ctx.Err() == nil {
		if p.Protocol == "udp" {
			if p.look() { // the datagram stays in the socket, for the VM
				d.Knock()
				return
			}
			continue
		}
		select {
		case d.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := p.accept()
		if err == nil {
			d.heldMu.Lock()
			d.held = append(d.held, waiter{p.Forward, conn})
			d.heldMu.Unlock()
			d.Knock()
			continue
		}
		<-d.places
		if errors.Is(err, errNobody) {
			continue
		}
		d.log.Warn("a connection was not accepted", "forward", p.Forward, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(firstPause): // no descriptor is free
		}
	}
}
