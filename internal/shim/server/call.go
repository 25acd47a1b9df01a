package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"banger"
	"banger/internal/shim"
)

// networkCall carries out a call about the network. It owns file, which only FORWARD and
// CARRY have.
func (s *server) networkCall(ctx context.Context, call, arg string, file *os.File) ([]banger.Listener, error) {
	if s.access == nil {
		file.Close()
		return nil, errors.New("the VM has no network")
	}
	switch call {
	case shim.CallPorts:
		return s.access.Ports(ctx, arg == shim.Probe), nil
	case shim.CallAccept:
		s.access.GoOn()
		return nil, nil
	case shim.CallPolicy, shim.CallOnce:
		return nil, s.policyCall(call, arg)
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
	case call == shim.CallRelease:
		return nil, s.access.Release(f)
	case file == nil:
		return nil, errors.New("the forward came without its socket")
	case call == shim.CallCarry:
		return nil, s.gate.Carry(f, file)
	}
	return nil, s.access.Add(f, file)
}

// policyCall replaces the policy, or lets a rule count in front of it for a time.
func (s *server) policyCall(call, arg string) error {
	var p banger.Policy
	var o shim.Once
	var err error
	if call == shim.CallOnce {
		if err = json.Unmarshal([]byte(arg), &o); err == nil {
			err = o.Rule.Check()
		}
	} else if err = json.Unmarshal([]byte(arg), &p); err == nil {
		err = p.Check()
	}
	switch {
	case err != nil:
		return err
	case s.stack == nil:
		return errors.New("the bridge decides, not the shim")
	case call == shim.CallOnce:
		return s.stack.AllowOnce(o.Rule, time.Now().Add(o.For))
	}
	s.stack.SetPolicy(p)
	return nil
}

// readCall reads one line and nothing after it. It also returns the descriptor that came with the first byte, if any.
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
		line, err = shim.ReadLine(conn)
		line = string(b[:]) + line
	}
	if err != nil && file != nil {
		file.Close()
	}
	return line, file, err
}
