package boot

import "golang.org/x/sys/unix"

// eventRoom is the size of the socket's buffer in bytes. The devices of a guest send a tenth of that.
const eventRoom = 4 << 20

// WatchDevices returns a socket on which the kernel announces each device from now on (netlink(7),
// NETLINK_KOBJECT_UEVENT). The caller closes it.
func WatchDevices() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, eventRoom)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
