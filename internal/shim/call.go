package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"syscall"

	"banger"
)

// MaxCall is the maximum length in bytes of the line of a call. The longest calls are those with a policy.
const MaxCall = 1 << 20

// ReadLine reads one line from r and nothing after it.
func ReadLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < MaxCall {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", bufio.ErrTooLong
}

// Ports returns the listening sockets of the guest and where they can be reached. With probe it sends a request to each
// of them, to find those that speak HTTP.
func (c Client) Ports(ctx context.Context, probe bool) ([]banger.Listener, error) {
	call := CallPorts
	if probe {
		call += " " + Probe
	}
	st, err := c.call(ctx, call)
	return st.Ports, err
}

// AddForward puts a forward in force. The shim gets a copy of its socket.
func (c Client) AddForward(ctx context.Context, f banger.Forward, socket *os.File) error {
	return c.callWith(ctx, CallForward, f, socket)
}

// RemoveForward ends a forward and its connections.
func (c Client) RemoveForward(ctx context.Context, f banger.Forward) error {
	return c.callWith(ctx, CallRelease, f, nil)
}

// Accept begins to take connections to a VM that goes on.
func (c Client) Accept(ctx context.Context) error {
	_, err := c.call(ctx, CallAccept)
	return err
}

// Carry hands the shim a copy of a connection to a forward, which was accepted while the VM was suspended.
func (c Client) Carry(ctx context.Context, f banger.Forward, conn *os.File) error {
	return c.callWith(ctx, CallCarry, f, conn)
}

// SetPolicy replaces the policy. It returns when the flows that the new policy forbids are cut.
func (c Client) SetPolicy(ctx context.Context, p banger.Policy) error {
	return c.callWith(ctx, CallPolicy, p, nil)
}

// AllowOnce lets a rule count in front of the policy of a user network for a time. The shim holds it, and nothing
// stores it. Flows that it has allowed go on after that.
func (c Client) AllowOnce(ctx context.Context, o Once) error {
	return c.callWith(ctx, CallOnce, o, nil)
}

// AddRefusal adds a refusal of the daemon to those that the shim keeps.
func (c Client) AddRefusal(ctx context.Context, d banger.Decision) error {
	return c.callWith(ctx, CallDeny, d, nil)
}

// Decisions writes the refusals of the policy and, with all, the flows that it has allowed to w, one JSON object of
// banger.Decision per line: the last tail ones (all that are kept if tail is negative) and, with follow, new ones until
// the VMM ends (it then returns nil) or ctx ends.
func (c Client) Decisions(ctx context.Context, all bool, tail int, follow bool, w io.Writer) error {
	return c.stream(ctx, fmt.Sprintf("%s %d %t %t", CallDecisions, tail, follow, all), w)
}

func (c Client) callWith(ctx context.Context, call string, arg any, file *os.File) error {
	data, err := json.Marshal(arg)
	if err != nil {
		return err
	}
	var oob []byte
	if file != nil {
		oob = syscall.UnixRights(int(file.Fd()))
	}
	_, err = c.brief(ctx, call+" "+string(data), oob)
	return err
}

// SyncClock sets the guest's clock from the host's at once.
func (c Client) SyncClock(ctx context.Context) error {
	_, err := c.call(ctx, CallClock)
	return err
}
