package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"banger/internal/accept"
	"banger/internal/agent/channel"
	"banger/internal/agent/console"
	"banger/internal/guest"
)

// host is the way by which the host asks, whatever the VMM offers: a serial port, which one session shares, or a vsock,
// which has a connection for each stream.
type host struct {
	fd     int  // of the port, or of a listening vsock
	listen bool // it is a vsock
}

// openHost opens the way. The port comes first, since nothing shows whether a vsock leads anywhere.
func openHost() (host, error) {
	port, err := channel.Open()
	if err == nil {
		return host{fd: port}, nil
	}
	vsock, verr := listenVsock(guest.AgentPort)
	if verr != nil {
		return host{}, errors.Join(err, verr)
	}
	return host{fd: vsock, listen: true}, nil
}

// hostAt is openHost for a descriptor that another process has opened.
func hostAt(fd int) host {
	_, err := unix.Getsockname(fd)
	return host{fd: fd, listen: err == nil}
}

// await says that the guest waits, and returns when the host has something to say. It reads nothing of that.
func (h host) await() error {
	console.Say(guest.Waiting)
	for {
		wait := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(wait, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("waiting for the host: %w", err)
		}
		switch got := wait[0].Revents; {
		case got&unix.POLLHUP != 0:
			time.Sleep(2 * time.Millisecond) // the port has no event for "the host is here"
		case got&unix.POLLIN != 0:
			return nil
		}
	}
}

// serve serves the host for life.
func (h host) serve(s *server) error {
	if !h.listen {
		port, err := channel.New(h.fd)
		if err != nil {
			return err
		}
		return serveChannel(port, s)
	}
	ln, err := listenerOf(h.fd)
	if err != nil {
		return err
	}
	go s.commands.Run() // for life
	return serveVsock(ln, s)
}

// listenerOf returns the listener of a listening vsock, and takes the descriptor.
func listenerOf(fd int) (net.Listener, error) {
	file := os.NewFile(uintptr(fd), "vsock")
	defer file.Close() // the listener has a copy
	ln, err := vsock.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listening on vsock: %w", err)
	}
	return accept.Retry(ln), nil
}
