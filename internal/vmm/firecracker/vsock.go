package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// maxHandshake is the largest answer to CONNECT, in bytes: "OK ", a port, a line feed.
	maxHandshake = 32
	// vsockTimeout is how long a guest may leave one CONNECT without an answer. A guest that listens
	// answers in less than a millisecond. If the guest does not listen, its kernel refuses and the
	// connection ends. No answer at all means that the device is dead.
	vsockTimeout = 5 * time.Second
	// firstTimeout is the same for the first CONNECT of a dial to a guest that has answered before. What is sent just
	// when a guest goes on from a snapshot may be lost.
	firstTimeout = time.Second
	// vsockRetry is the pause between two attempts while the guest does not listen yet.
	vsockRetry = 20 * time.Millisecond
)

// errVsockDead means that no guest reads packets from the device.
var errVsockDead = errors.New("the VM's vsock does not answer: the guest hangs, or Firecracker has lost the device, " +
	"as some versions do after a pause or a restore")

// dialVsock opens a connection to a port of the guest through the device's socket (Firecracker,
// docs/vsock.md: "CONNECT port\n", answered by "OK host-port\n"). It tries again while the guest
// does not listen, until ctx ends or ended is closed. lived says that the guest has answered
// before: then silence is an error if a second attempt meets it too, otherwise the guest still boots.
func dialVsock(ctx context.Context, socket string, port uint32, lived bool, ended <-chan struct{}) (net.Conn, error) {
	limit := vsockTimeout
	if lived {
		limit = firstTimeout
	}
	for {
		conn, err := connectVsock(ctx, socket, port, limit)
		silent := errors.Is(err, errVsockDead)
		if err == nil || silent && lived && limit == vsockTimeout {
			return conn, err
		}
		limit = vsockTimeout
		select {
		case <-ended:
			return nil, errors.New("the VM has ended")
		default:
		}
		if ctx.Err() == nil && !silent && !mayCome(err) {
			return nil, fmt.Errorf("connecting to the guest's vsock: %w", err)
		}
		select {
		case <-ended:
			return nil, errors.New("the VM has ended")
		case <-ctx.Done():
			return nil, fmt.Errorf("the guest does not listen on vsock port %d: %w", port, ctx.Err())
		case <-time.After(vsockRetry): // there is no event for a listening guest
		}
	}
}

// mayCome reports whether err is the error of a guest that does not listen yet.
func mayCome(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, fs.ErrNotExist)
}

// connectVsock makes one attempt. The guest has patience to answer.
func connectVsock(ctx context.Context, socket string, port uint32, patience time.Duration) (net.Conn, error) {
	conn, err := dialSocket(ctx, socket)
	if err != nil {
		return nil, err
	}
	limit := time.Now().Add(patience)
	conn.SetDeadline(limit)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	_, err = fmt.Fprintf(conn, "CONNECT %d\n", port)
	if err == nil {
		err = readHandshake(conn)
	}
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		conn.Close()
		if ctx.Err() == nil && !time.Now().Before(limit) {
			err = errVsockDead
		}
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// readHandshake reads "OK n\n" and no byte more, because what follows comes from the guest.
func readHandshake(r io.Reader) error {
	var line [maxHandshake]byte
	for i := range line {
		if _, err := io.ReadFull(r, line[i:i+1]); err != nil {
			return err
		}
		if line[i] != '\n' {
			continue
		}
		n, ok := strings.CutPrefix(string(line[:i]), "OK ")
		if _, err := strconv.ParseUint(n, 10, 32); !ok || err != nil {
			return fmt.Errorf("the VMM answered CONNECT with %q", line[:i])
		}
		return nil
	}
	return fmt.Errorf("the VMM answered CONNECT with more than %d bytes", maxHandshake)
}
