package network

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// moved counts what forwards carry. It grows whenever a byte moves, and when a connection begins or ends.
type moved struct {
	mu    sync.Mutex
	total uint64
	open  map[net.Conn]uint64 // bytes of a TCP connection that total has already
}

// Moved returns a number that grows whenever a byte moves by a forward, in either direction.
func (g *Gate) Moved() uint64 { return g.moved.count() }

// track counts a connection until the function that it returns is called.
func (m *moved) track(conn net.Conn) (end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open == nil {
		m.open = map[net.Conn]uint64{}
	}
	m.total++
	m.open[conn] = 0
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.total++
		delete(m.open, conn)
	}
}

func (m *moved) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total += uint64(n)
}

// count asks the kernel what open connections have carried, because it carries some of them by itself (splice(2)).
func (m *moved) count() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for conn, known := range m.open {
		if n := carried(conn); n > known {
			m.total += n - known
			m.open[conn] = n
		}
	}
	return m.total
}

// carried returns how many bytes a TCP connection has carried in both directions, or 0 if it was closed.
func carried(conn net.Conn) (n uint64) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Bytes_received + info.Bytes_acked
		}
	})
	return n
}
