package wake

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"

	"banger"
	"banger/internal/network"
	"banger/internal/networks"
	"banger/internal/shim"
)

// Options are the parts of Doors.
type Options struct {
	Networks *networks.Networks
	// Wake lets a suspended VM go on. It is called once for all connections that wait.
	Wake func(ctx context.Context, id string) (banger.VM, error)
	// Owner is the user who may use the VMs' own addresses, besides root.
	Owner uint32
	Log   *slog.Logger
}

// Doors are the doors of all suspended VMs of a daemon. Its methods may be called concurrently, those for one VM one at
// a time, except Knock.
type Doors struct {
	Options

	mu     sync.Mutex
	doors  map[string]*running
	left   map[string][]*os.File // sockets of VMs whose door is not open yet
	closed bool
	wg     sync.WaitGroup
}

// running is a door with the end of its Run.
type running struct {
	*Door
	cancel context.CancelFunc
}

// New returns Doors without any. Shut ends them.
func New(o Options) *Doors {
	return &Doors{Options: o, doors: map[string]*running{}, left: map[string][]*os.File{}}
}

// Leave keeps the sockets of a VM, which its shim has left, for Open. It owns them.
func (d *Doors) Leave(id string, files []*os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	closeAll(d.left[id])
	if d.left[id] = files; d.closed {
		closeAll(files)
		delete(d.left, id)
	}
}

// Open waits for connections to a suspended VM, at the sockets that its shim has left or at new ones. If the VM has a
// door, that goes on. It says in a sentence why a port of the VM is not open. A VM that no use may wake has no door.
func (d *Doors) Open(vm banger.VM) (problem string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	files := d.left[vm.ID]
	delete(d.left, vm.ID)
	defer closeAll(files)
	if door := d.doors[vm.ID]; door != nil {
		door.GoOn()
		return ""
	}
	if d.closed || vm.Spec.NoWake || vm.Spec.Network == banger.NetworkNone {
		return ""
	}
	log := d.Log.With("vm", vm.ID)
	door := NewDoor(log)
	var problems []string
	for _, p := range d.ports(vm) {
		if err := d.add(door, vm, p, files); err != nil {
			log.Warn("a port of the suspended VM is not open", "forward", p.Forward, "err", err)
			problems = append(problems, err.Error())
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.doors[vm.ID] = &running{door, cancel}
	d.wg.Go(func() {
		door.Run(ctx, func(ctx context.Context) error { _, err := d.Wake(ctx, vm.ID); return err })
	})
	if len(problems) == 0 {
		return ""
	}
	return "connections to it do not all wake it: " + strings.Join(problems, "; ")
}

// wanted is a port that a door should have.
type wanted struct {
	banger.Forward
	admit network.Admit
}

// ports returns the ports at which connections to a VM may come.
func (d *Doors) ports(vm banger.VM) (list []wanted) {
	for _, f := range vm.Forwards {
		if f.HostPort != 0 {
			list = append(list, wanted{f, nil})
		}
	}
	for _, f := range Own(vm) {
		list = append(list, wanted{f, network.OwnedBy(f.Protocol, d.Owner)})
	}
	return list
}

// add adds a port to a door, by the socket among files that is the port's, or by a new one.
func (d *Doors) add(door *Door, vm banger.VM, p wanted, files []*os.File) error {
	for _, f := range files {
		if at, err := placeOf(f); err == nil && at == (place{p.Protocol, p.Host()}) {
			return door.Add(p.Forward, f, p.admit)
		}
	}
	file, _, err := d.Networks.ListenFor(vm.ID, p.Forward)
	if err != nil {
		return err
	}
	defer file.Close()
	return door.Add(p.Forward, file, p.admit)
}

// Sockets returns the sockets with which a suspended VM goes on. Those of its door are held: connections wait in them.
// Others are opened. The caller owns them, and calls Open if the VM does not go on.
func (d *Doors) Sockets(vm banger.VM) (*networks.Sockets, error) {
	held := map[banger.Forward]*os.File{}
	if door := d.door(vm.ID); door != nil {
		door.Hold()
		var err error
		if held, err = door.Sockets(); err != nil {
			return nil, err
		}
	}
	s := &networks.Sockets{Listeners: vm.Listeners}
	forwards := vm.Forwards
	if len(forwards) != len(vm.Spec.Forwards) { // the row was made again from a record
		forwards = vm.Spec.Forwards
	}
	var own []*os.File
	for _, f := range Own(vm) {
		if file := held[f]; file != nil {
			s.Own, own = append(s.Own, f), append(own, file)
			delete(held, f)
		}
	}
	var err error
	for i, f := range forwards {
		file := held[f]
		delete(held, f)
		if file == nil {
			if file, f, err = d.Networks.ListenFor(vm.ID, f); err != nil && vm.Spec.Forwards[i].HostPort == 0 {
				file, f, err = d.Networks.ListenFor(vm.ID, vm.Spec.Forwards[i]) // the user did not name the port
			}
		}
		if err != nil {
			break
		}
		s.Forwards, s.Files = append(s.Forwards, f), append(s.Files, file)
	}
	s.Files = append(s.Files, own...)
	for _, f := range held { // none is left, if there was no error
		f.Close()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Pass gives the connections that wait to the shim of a VM that goes on, and closes the door.
func (d *Doors) Pass(ctx context.Context, id string, to shim.Client) error {
	ctx = context.WithoutCancel(ctx) // of a wake, which ends with the door
	if err := to.Accept(ctx); err != nil {
		return err
	}
	if door := d.door(id); door != nil {
		for _, w := range door.take() {
			if err := to.Carry(ctx, w.at, w.conn); err != nil {
				d.Log.Warn("a connection was refused", "vm", id, "forward", w.at, "err", err)
				reset(w.conn)
			}
			w.conn.Close()
		}
	}
	d.Close(id)
	return nil
}

// Close closes the door of a VM and refuses the connections that wait there. It does not wait for a wake, which may be
// its caller.
func (d *Doors) Close(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.close(id)
}

func (d *Doors) close(id string) {
	closeAll(d.left[id])
	delete(d.left, id)
	if door := d.doors[id]; door != nil {
		delete(d.doors, id)
		door.Door.Close()
		door.cancel()
	}
}

// Shut closes all doors, and returns when nothing of them is left.
func (d *Doors) Shut() {
	d.mu.Lock()
	d.closed = true
	for id := range d.doors {
		d.close(id)
	}
	for id := range d.left {
		d.close(id)
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// Knock wakes a suspended VM, if use may wake it. It does not wait.
func (d *Doors) Knock(id string) {
	if door := d.door(id); door != nil {
		door.Knock()
	}
}

func (d *Doors) door(id string) *running {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doors[id]
}

// Side is the door of one VM as the end of its forwards. Without a door, nothing waits for connections.
type Side struct {
	doors *Doors
	id    string
}

// Side returns the door of a VM as the end of its forwards.
func (d *Doors) Side(id string) Side { return Side{d, id} }

// AddForward waits for connections to a forward. The caller keeps socket.
func (s Side) AddForward(_ context.Context, f banger.Forward, socket *os.File) error {
	if door := s.doors.door(s.id); door != nil {
		return door.Add(f, socket, nil)
	}
	return nil
}

// RemoveForward ends a forward.
func (s Side) RemoveForward(_ context.Context, f banger.Forward) error {
	if door := s.doors.door(s.id); door != nil {
		door.Remove(f)
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
