package supervisor

import (
	"context"
	"net"

	"banger"
	"banger/internal/access"
	"banger/internal/custody"
	"banger/internal/guest"
	"banger/internal/shim"
)

// Guests returns the access to the inside of the VMs.
func (s *Supervisor) Guests() access.Guests {
	return access.Guests{VMs: reachable{s}, Images: s.opts.Images, Bridge: s.networks.Bridge}
}

// reachable is what package access needs of the VMs.
type reachable struct{ *Supervisor }

func (r reachable) Shim(id string) shim.Client { return r.shim(id) }

// Agent returns a client of a VM's agent.
func (r reachable) Agent(id string) guest.Client {
	c := r.shim(id)
	return guest.Client{Dial: func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, guest.AgentPort) }}
}

// Offering returns a client of a VM's agent whose streams can be given to another process.
func (r reachable) Offering(id string) guest.Client {
	c := r.shim(id)
	return guest.Client{Dial: func(ctx context.Context) (net.Conn, error) {
		return shim.OrNil(c.Offer(ctx, guest.AgentPort))
	}}
}

// OfferingMain is like Offering, for the stream of the main command, which also gets the command's output.
func (r reachable) OfferingMain(id string) guest.Client {
	c := r.shim(id)
	return guest.Client{Dial: func(ctx context.Context) (net.Conn, error) {
		return shim.OrNil(c.OfferMain(ctx, guest.AgentPort))
	}}
}

func (r reachable) Wake(ctx context.Context, id string) (banger.VM, error) {
	return r.Supervisor.Resume(ctx, id, banger.Discard)
}

func (r reachable) AttachMain(ctx context.Context, id string, e banger.Exec) (net.Conn, error) {
	m, err := r.find(id)
	if err != nil {
		return nil, err
	}
	return mainCommand{m}.attach(ctx, e)
}

// Custody returns the secrets of the VMs.
func (s *Supervisor) Custody() custody.Custody {
	return custody.Custody{VMs: reachable{s}, Dirs: s.dirs}
}

func (r reachable) Alter(ctx context.Context, ref string,
	f func(context.Context, banger.VM, custody.Change) error) error {
	_, err := r.alter(ctx, ref, func(ctx context.Context, m *machine) error {
		return f(ctx, m.Snapshot(), owned{m}.Change)
	})
	return err
}
