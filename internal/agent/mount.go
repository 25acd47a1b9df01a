package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

const newRoot = "/newroot"

type mountPoint struct {
	source, target, fstype, data string
	flags                        uintptr
	mode                         uint32 // of a target that is made
	optional                     bool
}

// mountEarly mounts what the initramfs itself needs.
func mountEarly() error {
	for _, m := range []mountPoint{
		{"proc", "/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0o755, false},
		{"sysfs", "/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, 0o755, false},
		{"devtmpfs", "/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID, 0o755, false},
	} {
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}

// loadModules loads the modules that the host packed, in their order.
func loadModules() error {
	list, err := os.ReadFile("/modules.list")
	if err != nil {
		return nil // a kernel with everything built in
	}
	for _, path := range strings.Fields(string(list)) {
		if !hasDevice(path) {
			os.Remove(path)
			continue
		}
		err := insertModule(path)
		os.Remove(path)                                 // its memory is the guest's again
		if err != nil && !errors.Is(err, unix.ENODEV) { // hardware of another VMM's transport
			return err
		}
	}
	return nil
}

// optionalDevices are modules that serve one virtio device alone, which not every VMM has
// (virtio 1.2, section 5): loading one costs an emulated guest 10 ms and more. The bus is
// loaded before them.
var optionalDevices = map[string]string{
	"virtio_balloon": "0x0005",
	"vsock":          "0x0013", "vmw_vsock_virtio_transport_common": "0x0013", "vmw_vsock_virtio_transport": "0x0013",
}

// hasDevice says whether a module's device may be there.
func hasDevice(module string) bool {
	id, optional := optionalDevices[strings.TrimSuffix(filepath.Base(module), ".ko")]
	if !optional {
		return true
	}
	devices, err := filepath.Glob("/sys/bus/virtio/devices/*/device")
	if err != nil || len(devices) == 0 {
		return true
	}
	for _, d := range devices {
		if got, err := os.ReadFile(d); err == nil && strings.TrimSpace(string(got)) == id {
			return true
		}
	}
	return false
}

// deviceTimeout bounds the wait for a disk; drivers probe asynchronously.
const deviceTimeout = 30 * time.Second

// findDisk returns the device node of the disk with the given serial.
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

// lookForDisk knows a disk by its serial number or, where the VMM makes those itself, by
// its place in the list that the host gives.
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

// overlayOptions are those whose default depends on the kernel's configuration. The upper
// directory must hold each changed file as a whole, since a commit reads it alone, so
// directories of the image are not renamed by a reference and no file is kept as mere
// attributes (overlayfs.rst).
const overlayOptions = "redirect_dir=follow,metacopy=off,index=off,"

// optionsFor returns the overlay's options for a disk: ours for one that had no others. A disk
// of an earlier version keeps the kernel's, because a file that is kept as mere attributes
// cannot be read with ours.
func optionsFor(disk string) (string, error) {
	whole := disk + "/whole" // says that the disk had our options from the first boot on
	if _, err := os.Lstat(disk + "/upper"); errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(whole, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	_, err := os.Lstat(whole)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return overlayOptions, err
}

// assembleRoot mounts the shared read-only rootfs and the VM's own disk and
// joins them at newRoot. It returns a descriptor of the disk's file system, by
// which it can be made clean at the end, when no path leads to it.
func assembleRoot() (int, error) {
	for _, m := range []struct {
		serial, target, data string
		flags                uintptr
	}{
		{"rootfs", "/rootfs", "", unix.MS_RDONLY},
		{"disk", "/disk", "errors=remount-ro,discard", 0}, // what is deleted goes back to the host
	} {
		dev, err := findDisk(m.serial)
		if err != nil {
			return -1, err
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return -1, err
		}
		if err := unix.Mount(dev, m.target, "ext4", m.flags, m.data); err != nil {
			return -1, fmt.Errorf("mounting the %s: %w", m.serial, err)
		}
	}
	options, err := optionsFor("/disk")
	if err != nil {
		return -1, fmt.Errorf("preparing the disk: %w", err)
	}
	for _, dir := range []string{"/disk/upper", "/disk/work", newRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return -1, err
		}
	}
	if err := copyRootMode(); err != nil {
		return -1, err
	}
	data := options + "lowerdir=/rootfs,upperdir=/disk/upper,workdir=/disk/work"
	if err := unix.Mount("overlay", newRoot, "overlay", 0, data); err != nil {
		return -1, fmt.Errorf("joining rootfs and disk: %w", err)
	}
	disk, err := unix.Open("/disk", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	mountPlain()
	mountModules()
	return disk, mountSystem()
}

// copyRootMode gives the overlay's root the owner and mode of the image's root:
// overlayfs shows those of the upper directory.
func copyRootMode() error {
	var st unix.Stat_t
	if err := unix.Stat("/rootfs", &st); err != nil {
		return err
	}
	if err := unix.Chown("/disk/upper", int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod("/disk/upper", st.Mode&0o7777)
}

// mountPlain puts the directories of container engines onto the plain disk:
// overlayfs cannot lie on overlayfs. It does so at every boot, whether an engine
// is installed yet or not, so that nothing written before is hidden after; what
// an image itself keeps there stays in sight.
func mountPlain() {
	for _, p := range []struct{ dir, target string }{
		{"/disk/docker", "var/lib/docker"},
		{"/disk/containerd", "var/lib/containerd"},
	} {
		fd, err := mkdirInRoot(p.target, 0o711)
		if err != nil {
			warn(err)
			continue
		}
		if err := bindIfEmpty(p.dir, fd); err != nil {
			warn(fmt.Errorf("mounting %s: %w", p.target, err))
		}
		unix.Close(fd)
	}
}

// bindIfEmpty mounts dir, which it makes, over the empty directory behind fd.
func bindIfEmpty(dir string, fd int) error {
	entries, err := os.ReadDir(procPath(fd))
	if err != nil || len(entries) > 0 {
		return err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	return unix.Mount(dir, procPath(fd), "", unix.MS_BIND, "")
}

// mountModules mounts the kernel's modules where modprobe looks. Without them
// the guest still runs, so a failure is only told.
func mountModules() {
	dev := lookForDisk("modules")
	if dev == "" {
		return
	}
	fd, err := mkdirInRoot("lib/modules/"+kernelRelease(), 0o755)
	if err == nil {
		err = unix.Mount(dev, procPath(fd), "ext4", unix.MS_RDONLY, "")
		unix.Close(fd)
	}
	if err != nil {
		warn(fmt.Errorf("mounting the kernel's modules: %w", err))
	}
}

// mountSystem mounts what every Linux program expects, inside newRoot.
func mountSystem() error {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []mountPoint{
		{"proc", "proc", "proc", "", quiet, 0o555, false},
		{"sysfs", "sys", "sysfs", "", quiet, 0o555, false},
		{"devtmpfs", "dev", "devtmpfs", "mode=0755", unix.MS_NOSUID, 0o755, false},
		{"devpts", "dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC, 0o755, false},
		{"tmpfs", "dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV, 0o1777, false},
		{"mqueue", "dev/mqueue", "mqueue", "", quiet, 0o755, true},
		{"tmpfs", "run", "tmpfs", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV, 0o755, false},
		{"cgroup2", "sys/fs/cgroup", "cgroup2", "nsdelegate", quiet, 0o755, true},
	} {
		fd, err := mkdirInRoot(m.target, m.mode)
		if err == nil {
			err = unix.Mount(m.source, procPath(fd), m.fstype, m.flags, m.data)
			unix.Close(fd)
		}
		if err != nil && !m.optional {
			return fmt.Errorf("mounting /%s: %w", m.target, err)
		}
	}
	for link, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		os.Symlink(target, filepath.Join(newRoot, "dev", link)) // devtmpfs is ours; EEXIST is fine
	}
	fd, err := mkdirInRoot("tmp", 0o1777)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// switchRoot makes newRoot the root of this process and of all to come
// (switch_root(8)): a moved mount, not a mere chroot, which would forbid user
// namespaces.
func switchRoot() error {
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/sys", "/proc"} {
		unix.Unmount(dir, unix.MNT_DETACH)
	}
	os.Remove("/init") // frees the initramfs' copy once nothing runs from it
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func warn(err error) { fmt.Fprintf(os.Stderr, "banger-agent: %v\n", err) }
