package channel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/boot"
)

// portName is the virtio-serial port that leads to the host.
const portName = "banger.agent"

// portTime bounds the wait for the port.
const portTime = 30 * time.Second

// errNoPort means that the guest has no port that leads to the host.
var errNoPort = errors.New("there is no channel to the host")

// Open opens the port to the host. It stays open for life: what arrives at a closed port is lost.
//
// A guest with a serial device gets its ports only after the driver has started, when the VMM has named each of them.
// The kernel announces that.
func Open() (fd int, err error) {
	announced, err := boot.WatchDevices()
	if err != nil {
		return -1, fmt.Errorf("watching the devices: %w", err)
	}
	defer unix.Close(announced)
	return portFinder{sys: "/sys", dev: "/dev", announced: announced}.open(time.Now().Add(portTime))
}

// portFinder finds the port to the host.
type portFinder struct {
	sys, dev  string // where the kernel lists devices, and where their nodes are
	announced int    // has a message for each device that comes or changes
}

// open waits for the port until the deadline if there is a device that may have it.
func (p portFinder) open(deadline time.Time) (fd int, err error) {
	message := make([]byte, 8<<10)
	for {
		if fd, err = p.look(); err != errNoPort || !p.mayCome() {
			return fd, err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return -1, errNoPort
		}
		unix.Poll([]unix.PollFd{{Fd: int32(p.announced), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		unix.Recvfrom(p.announced, message, unix.MSG_DONTWAIT)
	}
}

// look opens the port if it is there by now.
func (p portFinder) look() (fd int, err error) {
	names, err := filepath.Glob(p.sys + "/class/virtio-ports/*/name")
	if err != nil {
		return -1, err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != portName {
			continue
		}
		node := filepath.Join(p.dev, filepath.Base(filepath.Dir(path)))
		fd, err = unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return -1, fmt.Errorf("opening the channel to the host: %w", err)
		}
		return fd, nil
	}
	return -1, errNoPort
}

// mayCome reports whether the guest has a device with serial ports (virtio 1.2, section 5: device 3).
func (p portFinder) mayCome() bool {
	devices, _ := filepath.Glob(p.sys + "/bus/virtio/devices/*/device")
	for _, d := range devices {
		if id, err := os.ReadFile(d); err == nil && strings.TrimSpace(string(id)) == "0x0003" {
			return true
		}
	}
	return false
}
