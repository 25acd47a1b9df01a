// Package inlet gives the host access to the guest of one VM: by the forwards that were asked for, and by every
// listening port of the guest on the VM's loopback address.
//
// It must not know how the guest runs, nor who calls the VM's shim.
package inlet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/shim"
	"banger/internal/splice"
)

// maxLocal is the maximum number of connections to the guest's loopback. Each is a stream to the agent.
const maxLocal = 256

// Inlet is the host's access to one guest. Its methods may be called concurrently.
type Inlet struct {
	gate     *network.Gate
	loopback netip.Addr // not valid: no loopback address
	address  netip.Addr // the guest's address, if the host's kernel reaches it
	owner    uint32
	agent    guest.Client
	local    chan struct{} // one token for each connection to the guest's loopback

	mu        sync.Mutex
	held      bool                              // what the guest reports does not count
	again     context.CancelFunc                // lets Follow ask for a new report; nil before its first one
	listeners []banger.Listener                 // as the guest reports them
	wanted    []banger.Forward                  // forwards that were asked for
	open      map[banger.Forward]banger.Forward // ports on the loopback address, and each as it was really opened
	problems  map[banger.Forward]string         // why a port could not be opened
}

// New returns an inlet to a guest in the network n, which gate reaches, and whose agent says what listens.
func New(n *shim.Network, gate *network.Gate, agent guest.Client) *Inlet {
	a := &Inlet{gate: gate, owner: n.Owner, agent: agent, local: make(chan struct{}, maxLocal),
		listeners: n.Listeners, open: map[banger.Forward]banger.Forward{}, problems: map[banger.Forward]string{}}
	a.loopback, _ = netip.ParseAddr(n.Loopback)
	a.address, _ = netip.ParseAddr(n.Address)
	return a
}

// Add puts a forward in force. It owns file. If only the guest's loopback listens on the port, connections lead
// there.
func (a *Inlet) Add(f banger.Forward, file *os.File) error {
	connect := func(ctx context.Context, conn net.Conn) error {
		if a.isLocal(f.GuestPort) {
			return a.connectLocal(f.GuestPort)(ctx, conn)
		}
		return a.gate.Dial(ctx, f.GuestPort, conn)
	}
	if err := a.gate.Publish(f, file, connect, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = append(a.wanted, f)
	return nil
}

// isLocal reports whether only the guest's loopback listens on a TCP port.
func (a *Inlet) isLocal(port uint16) (local bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.listeners {
		if l.Protocol == "tcp" && l.Port == port {
			addr, err := netip.ParseAddr(l.Address)
			if err != nil || !addr.IsLoopback() {
				return false
			}
			local = true
		}
	}
	return local
}

func (a *Inlet) Release(f banger.Forward) error {
	if !a.gate.Unpublish(f) {
		return fmt.Errorf("there is no forward %s", f)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = slices.DeleteFunc(a.wanted, func(o banger.Forward) bool { return o == f })
	return nil
}

// Follow keeps the ports on the VM's loopback address the same as the guest's ports until ctx ends.
func (a *Inlet) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		watch, cancel := context.WithCancel(ctx)
		a.mu.Lock()
		a.again = cancel
		a.mu.Unlock()
		a.agent.WatchPorts(watch, a.update)
		again := watch.Err() != nil
		cancel()
		if again {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // back-off: the agent may be restarting
		}
	}
}

// Hold lets what comes from the host wait in its sockets, and leaves the ports as they are. A guest that stands still
// may report fewer ports than it has. GoOn undoes it.
func (a *Inlet) Hold() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.gate.Hold()
	a.held = err == nil
	return err
}

// GoOn undoes Hold. It asks the guest again what listens.
func (a *Inlet) GoOn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = false
	a.gate.GoOn()
	if a.again != nil {
		a.again()
	}
}

// portOffset is added to a port that only root may open.
const portOffset = 8000

// own returns the forward of a listener from the VM's loopback address.
func (a *Inlet) own(l banger.Listener) banger.Forward {
	return banger.Forward{Protocol: l.Protocol, HostIP: a.loopback.String(), HostPort: l.Port, GuestPort: l.Port}
}

// update opens and closes ports until they match list.
func (a *Inlet) update(list []banger.Listener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held {
		return
	}
	a.listeners = list
	if !a.loopback.IsValid() {
		return
	}
	want := a.ownPorts()
	for f, at := range a.open {
		if _, ok := want[f]; !ok {
			a.gate.Unpublish(at)
			delete(a.open, f)
		}
	}
	clear(a.problems)
	for f, local := range want {
		if _, ok := a.open[f]; !ok {
			a.publish(f, local)
		}
	}
}

// ownPorts returns the ports that must be open on the loopback address, and of each whether only the guest's loopback
// listens. a.mu is held.
func (a *Inlet) ownPorts() map[banger.Forward]bool {
	want := map[banger.Forward]bool{}
	for _, l := range a.listeners {
		f := a.own(l)
		addr, err := netip.ParseAddr(l.Address)
		if err != nil || f.Check() != nil || l.Protocol == "udp" && addr.IsLoopback() {
			continue
		}
		local, known := want[f]
		want[f] = addr.IsLoopback() && (local || !known)
	}
	return want
}

// publish opens a port on the loopback address. a.mu is held.
func (a *Inlet) publish(f banger.Forward, local bool) {
	if err := network.TellsOwners(f.Protocol); err != nil {
		a.problems[f] = "this host does not say whose the connections to a port are, so it stays closed: " + err.Error()
		return
	}
	at := f
	file, err := network.Listen(at)
	if banger.CodeOf(err) == banger.CodeDenied {
		at.HostPort += portOffset
		file, err = network.Listen(at)
	}
	if err == nil {
		err = a.serve(f, at, file, local)
	}
	if err != nil {
		a.problems[f] = err.Error()
	}
}

// serve puts a port on the loopback address in force, which was opened as the forward at. a.mu is held.
func (a *Inlet) serve(f, at banger.Forward, file *os.File, local bool) error {
	var connect network.Connect
	if local {
		connect = a.connectLocal(f.GuestPort)
	}
	err := a.gate.Publish(at, file, connect, network.OwnedBy(f.Protocol, a.owner))
	if err == nil {
		a.open[f] = at
	}
	return err
}

// connectLocal returns a function that connects, through the agent, to a port on which only the guest's loopback
// listens.
func (a *Inlet) connectLocal(port uint16) network.Connect {
	return func(ctx context.Context, conn net.Conn) error {
		select {
		case a.local <- struct{}{}:
		default:
			conn.Close()
			return fmt.Errorf("%d connections to the guest's loopback are open already", maxLocal)
		}
		defer func() { <-a.local }()
		stream, err := a.dialLocal(ctx, port, conn)
		if err != nil {
			conn.Close()
			return err
		}
		splice.Copy(ctx, conn, stream)
		return nil
	}
}

// dialLocal dials the guest's loopback for conn. It gives up when the peer of conn has gone.
func (a *Inlet) dialLocal(ctx context.Context, port uint16, conn net.Conn) (net.Conn, error) {
	ctx, stop := network.WithPeer(ctx, conn)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, shim.CallTime)
	defer cancel()
	return a.agent.DialLocal(ctx, port)
}

// Ports lists the listening sockets of the guest and where they can be reached. With probe it asks each of them what it
// speaks; without, no service notices.
func (a *Inlet) Ports(ctx context.Context, probe bool) []banger.Listener {
	list := a.reachable()
	if !probe {
		return list
	}
	ctx, cancel := context.WithTimeout(ctx, guessTime)
	defer cancel()
	var wg sync.WaitGroup
	for i := range list {
		if l := &list[i]; l.Protocol == "tcp" && len(l.Reachable) > 0 {
			wg.Go(func() {
				if scheme := a.guess(ctx, *l); scheme != "" {
					l.URL = scheme + "://" + l.Reachable[0]
				}
			})
		}
	}
	wg.Wait()
	return list
}

func (a *Inlet) reachable() []banger.Listener {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := slices.Clone(a.listeners)
	for i, l := range list {
		f := a.own(l)
		list[i].Reachable, list[i].URL, list[i].Problem = nil, "", a.problems[f]
		if at, ok := a.open[f]; ok {
			list[i].Reachable = append(list[i].Reachable, at.Host().String())
		}
		if addr, err := netip.ParseAddr(l.Address); a.address.IsValid() && err == nil && !addr.IsLoopback() {
			list[i].Reachable = append(list[i].Reachable, netip.AddrPortFrom(a.address, l.Port).String())
		}
		for _, w := range a.wanted {
			if w.GuestPort == l.Port && w.Protocol == l.Protocol {
				list[i].Reachable = append(list[i].Reachable, w.Host().String())
			}
		}
	}
	return list
}
