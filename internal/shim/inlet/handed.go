package inlet

import (
	"os"

	"banger"
	"banger/internal/shim"
)

// AddAll puts the forwards in force with which the shim was started.
func (a *Inlet) AddAll(first int, forwards []banger.Forward) error {
	for i, f := range forwards {
		if err := a.Add(f, os.NewFile(uintptr(first+i), f.String())); err != nil {
			return err
		}
	}
	return nil
}

// TakeOwn takes sockets for ports on the loopback address, from the descriptor first on. The guest's first report of
// its ports leaves those open on which it still listens.
func (a *Inlet) TakeOwn(first int, own []banger.Forward) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	want := a.ownPorts()
	for i, at := range own {
		file := os.NewFile(uintptr(first+i), at.String())
		f := at
		f.HostPort = at.GuestPort
		local, ok := want[f]
		if !ok {
			file.Close()
			continue
		}
		if err := a.serve(f, at, file, local); err != nil {
			return err
		}
	}
	return nil
}

// Leave takes the sockets of a VM that was written down from the gate. It also returns what listens in the guest, where
// Reachable has only ports of the loopback address.
func (a *Inlet) Leave() ([]banger.Listener, []*os.File) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []banger.Listener
	for _, l := range a.listeners[:min(len(a.listeners), shim.MaxWaiting)] {
		l.Reachable, l.URL, l.Problem = nil, "", ""
		if at, ok := a.open[a.own(l)]; ok {
			l.Reachable = []string{at.Host().String()}
		}
		list = append(list, l)
	}
	return list, a.gate.Take()
}
