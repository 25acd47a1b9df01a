package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/network/netstack"
	"banger/internal/shim"
)

// insideTap is a tap in user and network namespaces of the VMM, which contain nothing else. The wrapper of the VMM
// makes it there, hands its other side to the shim, and becomes the VMM, which has no rights. No right on the host is
// needed.
type insideTap struct{ *socketPair }

func newInsideTap() (*insideTap, error) {
	pair, err := newSocketPair()
	return &insideTap{pair}, err
}

// socketPair is a connection. One end is handed to another process.
type socketPair struct{ ours, theirs *os.File }

func newSocketPair() (*socketPair, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	return &socketPair{os.NewFile(uintptr(fds[0]), "shim"), os.NewFile(uintptr(fds[1]), "VMM")}, nil
}

// handedTap is the descriptor by which the wrapper hands over the tap.
const handedTap = wrapperSpec + 1

// handTap makes the tap in the wrapper's namespace for a user, and hands its other side to the shim.
func handTap(name string, owner int) error {
	to := os.NewFile(handedTap, "shim")
	defer to.Close()
	tap, err := netstack.MakeTap(name, owner)
	if errors.Is(err, syscall.EPERM) {
		err = fmt.Errorf(
			"this host gives an ordinary user's namespaces no rights: "+
				"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or use --vmm=qemu, which needs none: %w",
			err)
	}
	if err != nil {
		return err
	}
	defer tap.Close()
	return syscall.Sendmsg(handedTap, []byte{1}, syscall.UnixRights(int(tap.Fd())), nil, 0)
}

// dropRights gives up the wrapper's rights in its namespaces. Without ambient capabilities, a program that is not
// root gets no capabilities (capabilities(7)).
func dropRights() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
}

// receive returns the other side of the tap of a VMM that has started.
func (t *insideTap) receive() (*os.File, error) {
	t.theirs.Close() // reading then ends if the wrapper makes no tap
	conn, err := net.FileConn(t.ours)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(shim.CallTime))
	oob := make([]byte, syscall.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, fmt.Errorf("receiving the tap: %w", err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errors.New("the wrapper handed no tap over"), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errors.New("the wrapper handed no tap over"), err)
	}
	syscall.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "tap"), nil
}

func (t *socketPair) close() {
	t.ours.Close()
	t.theirs.Close()
}
