package access

import (
	"cmp"
	"context"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/resolve"
	"banger/internal/secret"
)

// Sessions gives clients the sessions of VMs. A suspended VM is woken for each request.
type Sessions struct{ Guests Guests }

// Sessions returns the access to sessions.
func (g Guests) Sessions() Sessions { return Sessions{g} }

// agent returns a client of the agent of a VM, which it wakes.
func (s Sessions) agent(ctx context.Context, ref string) (guest.Sessions, banger.VM, banger.Exec, error) {
	vm, def, err := s.Guests.awake(ctx, ref, "use a session of")
	if err != nil {
		return guest.Sessions{}, vm, def, err
	}
	return guest.Sessions{Client: s.Guests.VMs.Agent(vm.ID)}, vm, def, nil
}

// Start starts a session. Fields of its command that are empty come from the image and the VM's spec.
func (s Sessions) Start(ctx context.Context, ref string, spec banger.SessionSpec) (banger.Session, error) {
	agent, vm, def, err := s.agent(ctx, ref)
	if err != nil {
		return banger.Session{}, err
	}
	e := &spec.Command
	e.Env = resolve.MergeEnv(def.Env, e.Env)
	if e.Dir == "" {
		e.Dir, e.Workspace = def.Dir, e.Workspace || def.Workspace
	}
	if e.User == "" {
		e.User = def.User
	}
	if err := cmp.Or(spec.Check(), secret.Wanted(vm, e.Secrets)); err != nil {
		return banger.Session{}, err
	}
	return agent.Start(ctx, spec)
}

// List returns the sessions of a VM, the newest first.
func (s Sessions) List(ctx context.Context, ref string) ([]banger.Session, error) {
	agent, _, _, err := s.agent(ctx, ref)
	if err != nil {
		return nil, err
	}
	return agent.List(ctx)
}

// Get returns one session.
func (s Sessions) Get(ctx context.Context, ref, name string) (banger.Session, error) {
	return s.one(ctx, ref, func(c guest.Sessions) (banger.Session, error) { return c.Get(ctx, name) })
}

func (s Sessions) one(ctx context.Context, ref string,
	do func(guest.Sessions) (banger.Session, error)) (banger.Session, error) {
	agent, _, _, err := s.agent(ctx, ref)
	if err != nil {
		return banger.Session{}, err
	}
	return do(agent)
}

// Signal sends a signal to a session's command and its process group.
func (s Sessions) Signal(ctx context.Context, ref, name string, signal int) (banger.Session, error) {
	return s.one(ctx, ref, func(c guest.Sessions) (banger.Session, error) { return c.Signal(ctx, name, signal) })
}

// Stop ends a session, whose command has grace to end by itself, and returns when it has ended.
func (s Sessions) Stop(ctx context.Context, ref, name string, grace time.Duration) (banger.Session, error) {
	return s.one(ctx, ref, func(c guest.Sessions) (banger.Session, error) { return c.Stop(ctx, name, grace) })
}

// Remove removes a session that has ended. With force it ends the session first.
func (s Sessions) Remove(ctx context.Context, ref, name string, force bool) error {
	_, err := s.one(ctx, ref, func(c guest.Sessions) (banger.Session, error) {
		return banger.Session{}, c.Remove(ctx, name, force)
	})
	return err
}

// Wait returns when a session has ended.
func (s Sessions) Wait(ctx context.Context, ref, name string) (banger.Session, error) {
	return s.one(ctx, ref, func(c guest.Sessions) (banger.Session, error) { return c.Wait(ctx, name) })
}

// Ready returns when a session is ready, or an error after a time.
func (s Sessions) Ready(ctx context.Context, ref, name string, within time.Duration) (banger.Session, error) {
	return s.one(ctx, ref, func(c guest.Sessions) (banger.Session, error) { return c.Ready(ctx, name, within) })
}

// Readiness returns what the ready probe of a running VM has seen. Unless within is 0, it returns when the VM is ready,
// or an error after that time.
func (s Sessions) Readiness(ctx context.Context, ref string, within time.Duration) (banger.Readiness, error) {
	vm, _, err := s.Guests.running(ref, "probe")
	if err != nil {
		return banger.Readiness{}, err
	}
	return s.Guests.VMs.Agent(vm.ID).Readiness(ctx, within)
}

// Send gives a session's command what r has as stdin, which then ends if end says so.
func (s Sessions) Send(ctx context.Context, ref, name string, end bool, r io.Reader) (banger.Session, error) {
	return s.one(ctx, ref, func(c guest.Sessions) (banger.Session, error) { return c.Send(ctx, name, end, r) })
}

// Attach opens the stream of a client of a session, as guest.OpSessionAttach describes. The caller owns it.
func (s Sessions) Attach(ctx context.Context, ref, name string, v banger.SessionView) (net.Conn, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	_, vm, _, err := s.agent(ctx, ref)
	if err != nil {
		return nil, err
	}
	return guest.Sessions{Client: s.Guests.VMs.Offering(vm.ID)}.Attach(ctx, name, v)
}

// AttachMain opens a stream to a VM's main command, which runs already. size is that of the client's terminal, or zero.
// The caller owns the stream, whose end leaves the command running.
func (s Sessions) AttachMain(ctx context.Context, ref string, size frame.Resize) (net.Conn, error) {
	vm, _, err := s.Guests.awake(ctx, ref, "attach to")
	if err != nil {
		return nil, err
	}
	if vm.Main == nil {
		return nil, banger.Errorf(banger.CodeConflict, "VM %s has no main command", vm.Name).
			WithHint("run one in it: banger exec -it %s sh", vm.Name)
	}
	return s.Guests.VMs.OfferingMain(vm.ID).Attach(ctx, size)
}

// Events calls tell with what happens to the sessions of a VM behind the cursor since, as guest.Sessions.Events. The
// VM may be parked while a client waits, because that needs nothing of it.
func (s Sessions) Events(ctx context.Context, ref, since string, once bool,
	tell func(banger.SessionChange) error) error {
	agent, _, _, err := s.agent(ctx, ref)
	if err != nil {
		return err
	}
	return agent.Events(ctx, since, once, tell)
}

// Output writes what v selects of a session's output, each piece as frame.Stamp and frame.Stdout or frame.Stderr.
// Nothing is written before the session is found.
func (s Sessions) Output(ctx context.Context, ref, name string, v banger.LogView, w io.Writer) error {
	agent, _, _, err := s.agent(ctx, ref)
	if err != nil {
		return err
	}
	conn, err := agent.Attach(ctx, name, banger.SessionView{Log: &v})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return guest.CopyOutput(w, conn, v.Position)
}
