// Package boot is what the agent does to a guest before and after it serves the host:
// it mounts the disks, loads modules, assembles the root, configures the system and
// its network, hands PID 1 to the image's own init, and ends the guest.
//
// The image is hostile: no path of it is followed out of the new root, and none of its
// programs is needed. The package must not know how the host asks, nor what VMM the
// guest runs under.
package boot

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/agent/freezer"
	"banger/internal/guest"
)

// Begin mounts what a kernel that has only its initramfs needs first.
func Begin() error { return mountEarly() }

// Prepare goes on from Begin to what is the same for all VMs of one shape: it loads modules and
// mounts the image. It reads nothing of the VM's own disk, whose device node it returns.
func Prepare() (own string, err error) {
	d, err := watchDisks()
	if err != nil {
		return "", fmt.Errorf("watching the disks: %w", err)
	}
	defer d.close()
	if err := loadModules(); err != nil {
		return "", err
	}
	image, err := d.await("rootfs")
	if err == nil {
		own, err = d.await("disk")
	}
	if err != nil {
		return "", err
	}
	return own, mountDisk(image, "/rootfs", unix.MS_RDONLY, "")
}

// MountsFirst reports whether the guest is to mount its own disk before it waits for its host.
func MountsFirst() bool { return kernelArgument(guest.MountArgument) || WaitsBooted() }

// Start goes on from Prepare, which has returned own, to a root in which programs can run. handOver says that the
// image's own init is to become PID 1.
func Start(own string) (i *Init, handOver bool, err error) {
	handOver = kernelArgument(guest.InitArgument)
	disk, err := assembleRoot(own, handOver)
	if err != nil {
		return nil, false, err
	}
	if err := switchRoot(); err != nil {
		return nil, false, err
	}
	if !handOver { // an init of the image's own sets limits, and has a program for modules
		raiseLimits()
		serveModprobe()
	}
	prepareNetwork()
	return &Init{machine{disk: disk, freezer: freezer.Open(freezer.Hierarchy)}}, handOver, nil
}

// KernelRelease returns the release of the running kernel, such as "6.1.0-28-amd64".
func KernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// kernelArgument reports whether the kernel was started with arg.
func kernelArgument(arg string) bool {
	return slices.Contains(kernelArguments(), arg)
}

// kernelValue returns the value of name=value.
func kernelValue(name string) (string, bool) {
	for _, a := range kernelArguments() {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

func kernelArguments() []string {
	data, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}
