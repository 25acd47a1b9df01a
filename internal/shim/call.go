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

// MaxCall bounds the line of a call in bytes; the longest is that of a policy.
const MaxCall = 1 << 20

// ReadLine reads one line without reading past it.
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

// Ports asks what listens in the guest and where it is reached.
func (c Client) Ports(ctx context.Context) ([]banger.Listener, error) {
	st, err := c.call(ctx, CallPorts)
	return st.Ports, err
}

// AddForward puts a forward in force, whose socket the shim gets a copy of.
func (c Client) AddForward(ctx context.Context, f banger.Forward, socket *os.File) error {
	return c.callWith(ctx, CallForward, f, socket)
}

// RemoveForward ends a forward and its connections.
func (c Client) RemoveForward(ctx context.Context, f banger.Forward) error {
	return c.callWith(ctx, CallRelease, f, nil)
}

// SetPolicy replaces the policy; it returns when the flows that it forbids are cut.
func (c Client) SetPolicy(ctx context.Context, p banger.Policy) error {
	return c.callWith(ctx, CallPolicy, p, nil)
}

// AddDenial notes what the daemon has refused the VM in the shim's place.
func (c Client) AddDenial(ctx context.Context, d banger.Denial) error {
	return c.callWith(ctx, CallDeny, d, nil)
}

// Denials writes what the policy has refused to w, one JSON object of banger.Denial
// per line: the last tail ones (all that are kept when negative) and, with follow,
// what comes until the VMM ends (nil) or ctx does.
func (c Client) Denials(ctx context.Context, tail int, follow bool, w io.Writer) error {
	return c.stream(ctx, fmt.Sprintf("%s %d %t", CallDenials, tail, follow), w)
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

// SyncClock brings the guest's clock to the host's at once.
func (c Client) SyncClock(ctx context.Context) error {
	_, err := c.call(ctx, CallClock)
	return err
}
