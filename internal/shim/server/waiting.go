package server

import (
	"encoding/json"
	"net"
	"os"
	"syscall"

	"banger"
	"banger/internal/shim"
)

// takeOwn takes sockets for ports on the loopback address, from the descriptor first on. The guest's first report of
// its ports leaves those open on which it still listens.
func (a *access) takeOwn(first int, own []banger.Forward) error {
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

// leave takes the sockets of a VM that was written down from the gate. It also returns what listens in the guest, where
// Reachable has only ports of the loopback address.
func (a *access) leave() ([]banger.Listener, []*os.File) {
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

// waiting is what a VM that was written down leaves for those who connect to it.
type waiting struct {
	listeners []banger.Listener
	files     []*os.File
}

func (w waiting) close() {
	for _, f := range w.files {
		f.Close()
	}
}

// answerSuspend answers a call with the sockets of a VM that was written down, if there are any, and its status.
func answerSuspend(conn *net.UnixConn, st shim.Status, files []*os.File) error {
	for len(files) > 0 {
		n := min(len(files), shim.MaxFiles)
		var fds []int
		for _, f := range files[:n] {
			fds = append(fds, int(f.Fd()))
		}
		if _, _, err := conn.WriteMsgUnix([]byte(" "), syscall.UnixRights(fds...), nil); err != nil {
			return err
		}
		files = files[n:]
	}
	return json.NewEncoder(conn).Encode(st)
}
