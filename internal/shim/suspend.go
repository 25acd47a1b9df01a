package shim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
)

// maxSockets is the maximum number of sockets that come with the answer to SUSPEND.
const maxSockets = 4096

// Suspend writes the VM to its directory and ends the VMM. After an error the VM goes on; the code is CodeDisk if there
// was no room. The shim does not stop when ctx ends. The caller owns the VM's listening sockets, in which connections
// wait. They come from the shim, so the caller must check what they are.
func (c Client) Suspend(ctx context.Context) (sockets []*os.File, err error) {
	_, err = c.exchangeBy(ctx, CallSuspend, nil, func(conn *net.UnixConn) (rest io.Reader, err error) {
		sockets, rest, err = readSockets(conn)
		return rest, err
	})
	if err != nil {
		closeAll(sockets)
		return nil, err
	}
	return sockets, nil
}

// readSockets reads the sockets that come before an answer, one batch with each space. rest is the answer.
func readSockets(conn *net.UnixConn) (list []*os.File, rest io.Reader, err error) {
	for len(list) <= maxSockets {
		var b [1]byte
		oob := make([]byte, syscall.CmsgSpace(4*MaxFiles))
		n, oobn, _, _, err := conn.ReadMsgUnix(b[:], oob)
		if err != nil || n != 1 {
			return list, nil, errors.Join(err, io.ErrUnexpectedEOF)
		}
		list = append(list, filesOf(oob[:oobn])...)
		if b[0] != ' ' {
			return list, io.MultiReader(bytes.NewReader(b[:]), conn), nil
		}
	}
	return list, nil, errors.New("it sent too many sockets")
}

// filesOf returns the descriptors in ancillary data.
func filesOf(oob []byte) (list []*os.File) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.SetNonblock(fd, true) // os.NewFile then waits without a thread
			list = append(list, os.NewFile(uintptr(fd), "socket"))
		}
	}
	return list
}

// LastListeners returns what listened in the guest of a suspended VM, as its shim recorded it, if there is a record.
func (c Client) LastListeners() ([]banger.Listener, error) {
	st, err := c.lastStatus()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return st.Ports, err
}
