package netstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"banger/internal/network"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger"
)

// MakeTap makes a tap in the calling thread's network namespace, for a VMM there
// that opens it by name, as Firecracker does, and returns the other side of it: a
// socket that reads what the VMM sends and writes what it gets, for NewTap. The
// socket may be handed to a process of another namespace (unix(7), SCM_RIGHTS), which
// then serves the VMM without any right there. The tap is there until its namespace
// goes; nothing in the namespace itself speaks on it.
//
// The owner is the user id of the VMM, which needs no right at all.
//
// It needs CAP_NET_ADMIN and CAP_NET_RAW over the namespace, and the right to open
// /dev/net/tun. A user who makes a user
// namespace has both capabilities over the network namespaces made in it.
func MakeTap(name string, owner int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil, banger.Errorf(banger.CodeDenied, "this user may not open /dev/net/tun").
			WithHint("sudo chmod 0666 /dev/net/tun, as most distributions have it")
	}
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "open /dev/net/tun: %w", err).
			WithHint("load the module: sudo modprobe tun")
	}
	defer unix.Close(fd) // it is persistent
	if err := setTap(fd, name, owner); err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "make tap %s: %w", name, err)
	}
	f, err := packetSocket(name)
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "open the other side of tap %s: %w", name, err)
	}
	return f, nil
}

func setTap(fd int, name string, owner int) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, owner); err != nil {
		return fmt.Errorf("give it an owner: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep it: %w", err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := disableIPv6(name); err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetMTU(l, network.UserMTU), netlink.LinkSetARPOff(l), netlink.LinkSetUp(l))
}

// disableIPv6 keeps the thread's namespace from speaking IPv6 on a link.
func disableIPv6(link string) error {
	path := "/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6"
	have, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	if err != nil || strings.TrimSpace(string(have)) == "1" {
		return err
	}
	return os.WriteFile(path, []byte("1"), 0o644)
}

// packetSocket opens a link from the kernel's side (packet(7)).
func packetSocket(name string) (*os.File, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00 // in the network's byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), name)
	// What we send is not to come back.
	for _, option := range []int{unix.PACKET_IGNORE_OUTGOING, unix.PACKET_QDISC_BYPASS} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			f.Close()
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer) // as much as the kernel allows
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index}); err != nil {
		f.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	return f, nil
}

const tapBuffer = 4 << 20 // bytes
