package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"banger"
)

// maxCall bounds the line of a call in bytes; the longest is that of a policy.
const maxCall = 1 << 20

// networkCall obeys a call about the network; it owns file, which only FORWARD has.
func (s *server) networkCall(ctx context.Context, call, arg string, file *os.File) ([]banger.Listener, error) {
	if s.access == nil {
		file.Close()
		return nil, errors.New("the VM has no network")
	}
	switch call {
	case callPorts:
		return s.access.ports(ctx), nil
	case callPolicy:
		var p banger.Policy
		if err := json.Unmarshal([]byte(arg), &p); err != nil {
			return nil, err
		}
		if err := p.Check(); err != nil {
			return nil, err
		}
		if s.stack == nil {
			return nil, errors.New("the bridge decides, not the shim")
		}
		s.stack.SetPolicy(p)
		return nil, nil
	}
	var f banger.Forward
	err := json.Unmarshal([]byte(arg), &f)
	if err == nil {
		err = f.Check()
	}
	switch {
	case err != nil:
		file.Close()
		return nil, err
	case call == callRelease:
		return nil, s.access.release(f)
	case file == nil:
		return nil, errors.New("the forward came without its socket")
	}
	return nil, s.access.add(f, file)
}

// addAll puts the forwards in force that the shim was started with.
func (a *access) addAll(first int, forwards []banger.Forward) error {
	for i, f := range forwards {
		if err := a.add(f, os.NewFile(uintptr(first+i), f.String())); err != nil {
			return err
		}
	}
	return nil
}

// readCall reads one line without reading past it, and the descriptor that came
// with its first byte, if one did.
func readCall(conn *net.UnixConn) (line string, file *os.File, err error) {
	var b [1]byte
	oob := make([]byte, syscall.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(b[:], oob)
	if err != nil || n != 1 {
		return "", nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	if messages, perr := syscall.ParseSocketControlMessage(oob[:oobn]); perr == nil && len(messages) == 1 {
		if fds, perr := syscall.ParseUnixRights(&messages[0]); perr == nil && len(fds) == 1 {
			syscall.CloseOnExec(fds[0])
			file = os.NewFile(uintptr(fds[0]), "forward")
		}
	}
	if b[0] != '\n' {
		line, err = readLine(conn)
		line = string(b[:]) + line
	}
	if err != nil && file != nil {
		file.Close()
	}
	return line, file, err
}

// readLine reads one line without reading past it.
func readLine(r io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for len(line) < maxCall {
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
	st, err := c.call(ctx, callPorts)
	return st.Ports, err
}

// AddForward puts a forward in force, whose socket the shim gets a copy of.
func (c Client) AddForward(ctx context.Context, f banger.Forward, socket *os.File) error {
	return c.callWith(ctx, callForward, f, socket)
}

// RemoveForward ends a forward and its connections.
func (c Client) RemoveForward(ctx context.Context, f banger.Forward) error {
	return c.callWith(ctx, callRelease, f, nil)
}

// SetPolicy replaces the policy; it returns when the flows that it forbids are cut.
func (c Client) SetPolicy(ctx context.Context, p banger.Policy) error {
	return c.callWith(ctx, callPolicy, p, nil)
}

// AddDenial notes what the daemon has refused the VM in the shim's place.
func (c Client) AddDenial(ctx context.Context, d banger.Denial) error {
	return c.callWith(ctx, callDeny, d, nil)
}

// Denials writes what the policy has refused to w, one JSON object of banger.Denial
// per line: the last tail ones (all that are kept when negative) and, with follow,
// what comes until the VMM ends (nil) or ctx does.
func (c Client) Denials(ctx context.Context, tail int, follow bool, w io.Writer) error {
	return c.stream(ctx, fmt.Sprintf("%s %d %t", callDenials, tail, follow), w)
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
