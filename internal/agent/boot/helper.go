package boot

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// Helps reports whether the guest is to read the disks of other VMs.
func Helps() bool {
	_, ok := kernelValue(guest.CompareArgument)
	return ok
}

// PrepareHelper goes on from Begin to a guest that reads disks. It has no root but its initramfs, and runs nothing of
// the image. PrepareHelper mounts the disks, and returns the directory of each by its name, that of the image as
// "rootfs", and as "modules" the device with the kernel's modules, or "".
func PrepareHelper() (disks map[string]string, err error) {
	d, err := watchDisks()
	if err != nil {
		return nil, err
	}
	defer d.close()
	if err := loadModules(); err != nil {
		return nil, err
	}
	raiseLimits()
	list, _ := kernelValue(guest.CompareArgument)
	disks = map[string]string{}
	for name := range strings.SplitSeq("rootfs,"+list, ",") {
		dev, err := d.await(name)
		if err != nil {
			return nil, err
		}
		data := "" // of the image, which is not written to at all; the kernel completes the journals of the others
		if name != "rootfs" {
			data = "errors=continue"
		}
		disks[name] = "/" + name
		if err := os.MkdirAll(disks[name], 0o700); err != nil {
			return nil, err
		}
		const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
		if err := unix.Mount(dev, disks[name], "ext4", flags, data); err != nil {
			return nil, fmt.Errorf("mounting the disk %q: %w", name, err)
		}
	}
	disks["modules"] = lookForDisk("modules")
	return disks, nil
}
