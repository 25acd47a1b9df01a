// Package accept keeps a listener alive when Accept fails for some time, as it does when the process has no free
// descriptor.
//
// The package must not know what the connections are for.
package accept

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Waits between calls of Accept that fail, as in net/http.
const (
	firstWait = 5 * time.Millisecond
	longWait  = time.Second
)

// Retry returns a listener that owns ln. Its Accept fails only when the listener is closed. After any other error it
// waits, from 5 ms up to 1 s, and tries again. Close ends the wait.
func Retry(ln net.Listener) net.Listener {
	return &listener{Listener: ln, closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *listener) Accept() (net.Conn, error) {
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		conn, err := l.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}
