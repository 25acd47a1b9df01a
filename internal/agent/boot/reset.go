package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// resetModule is the module by which the kernel lists and resets TCP connections. Some kernels have it built in.
const resetModule = "tcp_diag"

// prepareReset loads what resetConnections needs. Before a snapshot there is time for that. A failure shows in
// resetConnections, if the kernel has no other way.
func prepareReset() {
	if _, err := os.Stat("/sys/module/" + resetModule); err != nil { // to look for its file is slow after a restore
		loadModule("/lib/modules/"+KernelRelease(), resetModule)
	}
}

// resetConnections resets the guest's TCP connections with the outside, in the network namespaces with these paths, so
// that their programs see the end at once. Connections inside the guest stay, and so do listeners.
func resetConnections(n *guest.Network, spaces []string) error {
	if n == nil {
		return nil
	}
	outside, err := netip.ParsePrefix(n.Address)
	if err != nil {
		return fmt.Errorf("the network's address %q is not a prefix", n.Address)
	}
	prepareReset()
	var failed error
	for _, path := range spaces {
		if err := inNamespace(path, func() error { return resetHere(outside.Masked()) }); err != nil {
			failed = err
		}
	}
	return failed
}

// namespaces returns a path of each network namespace in which a process is. To look at all processes is slow after a
// restore.
func namespaces() (paths []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	seen := map[string]bool{}
	for _, path := range all {
		name, err := os.Readlink(path)
		if err != nil || seen[name] {
			continue // the process has ended
		}
		seen[name] = true
		paths = append(paths, path)
	}
	return paths
}

// inNamespace calls do on a thread that is in a network namespace.
func inNamespace(path string, do func() error) error {
	result := make(chan error, 1)
	go func() { result <- visit(path, do) }() // the thread of a visit that cannot return ends with this goroutine
	return <-result
}

// visit moves this goroutine's thread to a network namespace for do.
func visit(path string, do func() error) error {
	there, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // its last process has ended
	} else if err != nil {
		return fmt.Errorf("opening a network namespace: %w", err)
	}
	defer unix.Close(there)
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the agent's network namespace: %w", err)
	}
	defer unix.Close(home)
	err = unix.Setns(there, unix.CLONE_NEWNET)
	if err == nil {
		err = do()
	}
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// resetHere resets the connections of this thread's namespace.
func resetHere(outside netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("opening sock_diag: %w", err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 64<<10) // more than the kernel sends at once
	var all []socket
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		sockets, err := connections(fd, family, buf)
		if family == unix.AF_INET6 && errors.Is(err, unix.ENOENT) {
			continue // the kernel has no IPv6
		}
		if err != nil {
			return fmt.Errorf("listing connections: %w", err)
		}
		all = append(all, sockets...)
	}
	if len(all) == 0 {
		return nil
	}
	inside, err := insidePrefixes(outside)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.isInside(inside) {
			continue
		}
		if err := s.destroy(fd, buf); err != nil && !s.isOver(err) {
			return fmt.Errorf("resetting a connection: %w", err)
		}
	}
	return nil
}

// insidePrefixes returns the addresses that lead to the guest itself: those that it has, and the networks of its
// devices, such as those of its containers. The network of the VM leads outside.
func insidePrefixes(outside netip.Prefix) (list []netip.Prefix, err error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the guest's addresses: %w", err)
	}
	list = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if p.Masked() == outside {
			p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
		list = append(list, p.Masked())
	}
	return list, nil
}

// The requests of sock_diag(7) and their sizes in bytes.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	requestSize      = 56 // struct inet_diag_req_v2
	answerSize       = 72 // struct inet_diag_msg
	socketIDSize     = 48 // struct inet_diag_sockid
)

// connected are the states of connections, as bits: all but those of a listener and of what is over.
const connected = 0x1ffe &^ (1<<timeWait | 1<<7 | 1<<10) // TCP_CLOSE, TCP_LISTEN

// The states of a connection that has no program any more, or may have none (tcp_states.h).
const (
	finWait2 = 5
	timeWait = 6
)

// socket is a connection as sock_diag names it.
type socket struct {
	family, state byte
	id            [socketIDSize]byte // ports, addresses, device, cookie
}

// isOver reports whether the error of destroy means that the connection has ended, or is no program's.
func (s socket) isOver(err error) bool {
	return errors.Is(err, unix.ENOENT) || s.state == finWait2 && errors.Is(err, unix.EOPNOTSUPP)
}

// isInside reports whether the other end is in the guest.
func (s socket) isInside(inside []netip.Prefix) bool {
	size := 4
	if s.family == unix.AF_INET6 {
		size = 16
	}
	peer, _ := netip.AddrFromSlice(s.id[20 : 20+size])
	peer = peer.Unmap()
	return slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// connections lists the TCP connections of a family.
func connections(fd int, family byte, buf []byte) (list []socket, err error) {
	body := make([]byte, requestSize)
	body[0], body[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], connected)
	if err := send(fd, sockDiagByFamily, unix.NLM_F_DUMP, body); err != nil {
		return nil, err
	}
	for {
		messages, err := receive(fd, buf)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Type == unix.NLMSG_DONE:
				return list, nil
			case m.Header.Type == unix.NLMSG_ERROR:
				return nil, errorIn(m)
			case len(m.Data) >= answerSize:
				s := socket{family: m.Data[0], state: m.Data[1]}
				copy(s.id[:], m.Data[4:])
				list = append(list, s)
			}
		}
	}
}

// destroy ends the connection: its program gets ECONNABORTED at once, and the other end, if it is there, a reset.
func (s socket) destroy(fd int, buf []byte) error {
	body := make([]byte, requestSize)
	body[0], body[1] = s.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(body[4:], connected)
	copy(body[8:], s.id[:])
	if err := send(fd, sockDestroy, unix.NLM_F_ACK, body); err != nil {
		return err
	}
	messages, err := receive(fd, buf)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == unix.NLMSG_ERROR {
			return errorIn(m)
		}
	}
	return errors.New("the kernel does not answer a request")
}

// send sends one request of netlink(7).
func send(fd int, kind, flags uint16, body []byte) error {
	m := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	binary.NativeEndian.PutUint32(m, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	return unix.Sendto(fd, append(m, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive returns the messages that have come at once. They are in buf.
func receive(fd int, buf []byte) ([]syscall.NetlinkMessage, error) {
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	return syscall.ParseNetlinkMessage(buf[:n])
}

// errorIn returns the error in a message, which is nil for success.
func errorIn(m syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return errors.New("the kernel's answer is too short")
	}
	if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}
