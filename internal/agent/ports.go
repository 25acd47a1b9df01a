package agent

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// portsInterval is how often the guest's sockets are looked at: Linux announces no
// new listener.
const portsInterval = time.Second

// watchPorts sends the client what listens, now and after each change, until the
// stream ends. A guest that is not configured yet is not looked at.
func (s *server) watchPorts(conn net.Conn, frames *frame.Reader) {
	gone := make(chan struct{})
	go func() { // ends with the stream
		frames.Next()
		close(gone)
	}()
	select {
	case <-gone:
		return
	case <-s.set:
	}
	tick := time.NewTicker(portsInterval)
	defer tick.Stop()
	var last map[string]banger.Listener
	for first := true; ; first = false {
		now := listeners(last)
		if first || !sameKeys(last, now) {
			if sendPorts(conn, now) != nil {
				return
			}
		}
		last = now
		select {
		case <-gone:
			return
		case <-tick.C:
		}
	}
}

// sendPorts sends a list of sockets, the lowest port first.
func sendPorts(conn net.Conn, sockets map[string]banger.Listener) error {
	list := make([]banger.Listener, 0, len(sockets))
	for _, l := range sockets {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b banger.Listener) int {
		return cmp.Or(int(a.Port)-int(b.Port), strings.Compare(a.Protocol+a.Address, b.Protocol+b.Address))
	})
	if len(list) > guest.MaxListeners {
		list = list[:guest.MaxListeners]
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return frame.Write(conn, frame.Response, data)
}

func sameKeys(a, b map[string]banger.Listener) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			return false
		}
	}
	return true
}

// listeners returns the listening sockets by inode. It looks up the process only of
// those that are not in known.
func listeners(known map[string]banger.Listener) map[string]banger.Listener {
	out := map[string]banger.Listener{}
	unknown := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(data), "\n")[1:] {
			l, inode, listens, ok := parseSocket(strings.TrimSuffix(table, "6"), line)
			if !ok || !listens {
				continue
			}
			if k, seen := known[inode]; seen {
				l = k
			} else {
				unknown[inode] = true
			}
			out[inode] = l
		}
	}
	if len(unknown) > 0 {
		nameOwners(out, unknown)
	}
	return out
}

// parseSocket reads a line of /proc/net/tcp or udp (proc_net(5)): a listener of TCP
// is in state 0A, a socket of UDP that is not connected is in state 07.
func parseSocket(protocol, line string) (l banger.Listener, inode string, listens, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return l, "", false, false
	}
	listens = protocol == "tcp" && f[3] == "0A" || protocol == "udp" && f[3] == "07"
	host, port, found := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(host)
	p, perr := strconv.ParseUint(port, 16, 16)
	if !found || err != nil || perr != nil || p == 0 || len(raw)%4 != 0 {
		return l, "", false, false
	}
	for i := 0; i < len(raw); i += 4 { // words in the machine's byte order
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, valid := netip.AddrFromSlice(raw)
	if !valid {
		return l, "", false, false
	}
	return banger.Listener{Protocol: protocol, Address: addr.Unmap().String(), Port: uint16(p)}, f[9], listens, true
}

// nameOwners finds the processes that hold the sockets, the youngest first, until all
// are found.
func nameOwners(sockets map[string]banger.Listener, unknown map[string]bool) {
	proc, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range slices.Backward(pids) {
		if len(unknown) == 0 {
			return
		}
		nameSockets(pid, sockets, unknown)
	}
}

// nameSockets names a process as the owner of its sockets, and removes them from unknown.
func nameSockets(pid int, sockets map[string]banger.Listener, unknown map[string]bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	d, err := os.Open(dir + "/fd")
	if err != nil {
		return
	}
	defer d.Close()
	fds, _ := d.Readdirnames(-1)
	for _, fd := range fds {
		target, err := os.Readlink(dir + "/fd/" + fd)
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		inode = strings.TrimSuffix(inode, "]")
		if err != nil || !isSocket || !unknown[inode] {
			continue
		}
		delete(unknown, inode)
		l := sockets[inode]
		l.PID = pid
		if name, err := os.ReadFile(dir + "/comm"); err == nil {
			l.Process = strings.TrimSpace(string(name))
		}
		sockets[inode] = l
	}
}

// owner finds the process that has the socket with a local port, bound or connected.
// It returns the zero Owner if there is none.
func owner(protocol string, port uint16) (o guest.Owner) {
	if protocol != "tcp" && protocol != "udp" {
		return o
	}
	sockets, unknown := map[string]banger.Listener{}, map[string]bool{}
	for _, table := range []string{protocol, protocol + "6"} {
		data, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(data), "\n")[1:] {
			if l, inode, _, ok := parseSocket(protocol, line); ok && l.Port == port && inode != "0" {
				sockets[inode], unknown[inode] = l, true
			}
		}
	}
	if len(unknown) > 0 {
		nameOwners(sockets, unknown)
	}
	for _, l := range sockets {
		if l.PID != 0 {
			return guest.Owner{Process: l.Process, PID: l.PID}
		}
	}
	return o
}

// dialLocal connects the stream to a TCP port of the guest's loopback.
func (s *server) dialLocal(conn net.Conn, port uint16) {
	k, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer k.leave()
	local, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), requestTimeout)
	if err != nil {
		if local, err = net.DialTimeout("tcp", net.JoinHostPort("::1", strconv.Itoa(int(port))), requestTimeout); err != nil {
			sendError(conn, banger.Errorf(banger.CodeUnavailable,
				"nothing answers on port %d of the guest's loopback: %w", port, err))
			return
		}
	}
	if frame.WriteJSON(conn, frame.Response, info()) != nil {
		local.Close()
		return
	}
	k.whenCut(func() { // a forward has no place for a reason
		local.Close()
		conn.Close()
	})
	join(conn, local.(*net.TCPConn))
}

// join carries bytes between the stream and a socket of the guest until both
// directions have ended.
func join(stream net.Conn, local *net.TCPConn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(local, stream); err != nil {
			local.Close()
			return
		}
		local.CloseWrite()
	})
	if _, err := io.Copy(stream, local); err != nil {
		stream.Close()
	} else if half, ok := stream.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	wg.Wait()
	local.Close()
}
