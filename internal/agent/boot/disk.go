package boot

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// deviceTimeout bounds the wait for a disk, since drivers look for devices in the
// background.
const deviceTimeout = 30 * time.Second

// disks are the disks that the kernel has announced, by their names, and the socket by which it announces them
// (netlink(7), NETLINK_KOBJECT_UEVENT). It announces a disk when it has read its partitions and needs it no more: what
// a program reads then is not kept from before. A template must not be cut earlier.
type disks struct {
	events int
	known  map[string]bool
	lost   bool // the kernel had no room for some announcements
}

// watchDisks begins before modules are loaded. The kernel has announced the disks of built-in drivers by then.
func watchDisks() (d *disks, err error) {
	d = &disks{known: map[string]bool{}}
	if d.events, err = WatchDevices(); err != nil {
		return d, err
	}
	entries, err := os.ReadDir("/sys/block")
	for _, e := range entries {
		d.known[e.Name()] = true
	}
	return d, err
}

func (d *disks) close() { unix.Close(d.events) }

// await waits for the disk with the given serial number, and returns its device node.
func (d *disks) await(serial string) (string, error) {
	deadline := time.Now().Add(deviceTimeout)
	buf := make([]byte, 8<<10)
	for {
		if dev := lookForDisk(serial); dev != "" && (d.lost || d.known[path.Base(dev)]) {
			return dev, nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return "", fmt.Errorf("there is no disk called %q", serial)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(d.events), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		n, _, err := unix.Recvfrom(d.events, buf, unix.MSG_DONTWAIT)
		switch {
		case err == unix.ENOBUFS:
			d.lost = true
		case err == nil:
			if name := announced(string(buf[:n])); name != "" {
				d.known[name] = true
			}
		}
	}
}

// announced returns the name of the disk that an event of the kernel announces, or "". An event is a line such as
// add@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda, followed by variables (kobject_uevent_env).
func announced(event string) string {
	line, _, _ := strings.Cut(event, "\x00")
	device, ok := strings.CutPrefix(line, "add@")
	if !ok || path.Base(path.Dir(device)) != "block" {
		return ""
	}
	return path.Base(device)
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
