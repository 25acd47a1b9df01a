package boot

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// deviceTimeout bounds the wait for a disk, since drivers look for devices in the
// background.
const deviceTimeout = 30 * time.Second

// findDisk waits for the disk with the given serial number, and returns its device node.
func findDisk(serial string) (string, error) {
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return "", err
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return "", err
	}
	deadline := time.Now().Add(deviceTimeout)
	buf := make([]byte, 8<<10)
	for {
		if dev := lookForDisk(serial); dev != "" {
			return dev, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return "", fmt.Errorf("there is no disk called %q", serial)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(events), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		unix.Recvfrom(events, buf, unix.MSG_DONTWAIT)
	}
}

// lookForDisk finds a disk by its serial number or, where the VMM chooses the serial
// numbers, by its place in the list that the host gives. It returns "" if there is none.
func lookForDisk(serial string) string {
	if list, ok := kernelValue(guest.DisksArgument); ok {
		i := slices.Index(strings.Split(list, ","), serial)
		if i < 0 || i > 'z'-'a' {
			return ""
		}
		name := "vd" + string(rune('a'+i))
		if _, err := os.Stat("/sys/block/" + name); err != nil {
			return ""
		}
		return "/dev/" + name
	}
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return ""
	}
	for _, e := range entries {
		data, err := os.ReadFile("/sys/block/" + e.Name() + "/serial")
		if err == nil && strings.TrimSpace(string(data)) == serial {
			return "/dev/" + e.Name()
		}
	}
	return ""
}
