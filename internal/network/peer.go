package network

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// guestTime is how long a guest has for the handshake of a connection that the host begins.
const guestTime = 10 * time.Second

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// WithPeer returns a context that ends with ctx, or when the peer of conn has closed or reset its
// end. A peer that has only closed its direction of writing is still there. Other goroutines must
// not read from conn before stop. stop returns when conn is free again, and ends the context.
func WithPeer(ctx context.Context, conn net.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	free := make(chan struct{})
	go func() { // stop ends it
		defer close(free)
		if hungUp(conn) {
			cancel()
		}
	}()
	return ctx, func() {
		conn.SetReadDeadline(past)
		<-free
		conn.SetReadDeadline(time.Time{})
		cancel()
	}
}

// ForHandshake returns a context for a handshake with the guest on behalf of conn. The context
// is WithPeer's, and ends after 10 s at the latest. The caller must call stop.
func ForHandshake(ctx context.Context, conn net.Conn) (_ context.Context, stop func()) {
	ctx, free := WithPeer(ctx, conn)
	ctx, done := context.WithTimeout(ctx, guestTime)
	return ctx, func() { done(); free() }
}

// Hangup finds out that the peer of a spliced connection has gone, while the other side of the
// splice still has its end open. Its zero value with a Conn is ready.
type Hangup struct {
	Conn    net.Conn
	mu      sync.Mutex
	waiting bool // nothing is read from Conn any more
	over    bool // nothing is written to Conn any more
}

// Wait is called when all has been read from Conn. It returns true when the peer has closed or
// reset its end, and false when Stop was called or Conn was closed.
func (h *Hangup) Wait() bool {
	h.mu.Lock()
	h.waiting = true
	over := h.over
	h.mu.Unlock()
	if over || !hungUp(h.Conn) {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.over
}

// Stop is called before the writing to Conn ends. It ends Wait.
func (h *Hangup) Stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if h.waiting {
		h.Conn.SetReadDeadline(past)
	}
}

// hungUp returns true when the peer of conn has closed or reset its end, and false when conn
// has no descriptor, is closed, or has a read deadline that passes.
func hungUp(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}} // poll(2) always reports POLLHUP and POLLERR
		n, _ := unix.Poll(p, 0)
		return n > 0
	}) == nil
}

// SpareDescriptor reports whether the process can afford the descriptor of c. The last descriptors
// are kept for control calls. The kernel assigns the lowest free descriptor, so its number shows
// how many are in use.
func SpareDescriptor(c syscall.Conn) bool {
	var limit unix.Rlimit
	raw, err := c.SyscallConn()
	if err != nil || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return false
	}
	ok := false
	raw.Control(func(fd uintptr) { ok = uint64(fd) < limit.Cur-min(limit.Cur/8, keptFiles) })
	return ok
}

// keptFiles is how many descriptors are kept for control calls, where there are many.
const keptFiles = 512
