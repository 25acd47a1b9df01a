package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
)

// newRoot is where the guest's root is assembled.
const newRoot = "/newroot"

// mountPoint is one call of mount(2).
type mountPoint struct {
	source, target, fstype, data string
	flags                        uintptr
	mode                         uint32 // of the target, if it must be made
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

// OverlayOptions are the options of the root's overlay whose default depends on the
// kernel's configuration. A commit reads the upper directory alone, so that directory
// must hold each changed file as a whole: the kernel must not rename directories of the
// image by a reference, nor keep a file as mere attributes (overlayfs.rst).
const OverlayOptions = "redirect_dir=follow,metacopy=off,index=off,"

// optionsFor returns the overlay's options for a disk: OverlayOptions for a new disk. A
// disk that an earlier version has used keeps the kernel's options, because a file that
// is kept as mere attributes cannot be read with ours.
func optionsFor(disk string) (string, error) {
	whole := disk + "/whole" // marks a disk that has had our options since its first boot
	if _, err := os.Lstat(disk + "/upper"); errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(whole, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	_, err := os.Lstat(whole)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return OverlayOptions, err
}

// mountDisk mounts the disk dev at a directory, which it makes.
func mountDisk(dev, target string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dev, target, "ext4", flags, data); err != nil {
		return fmt.Errorf("mounting the %s: %w", strings.TrimPrefix(target, "/"), err)
	}
	return nil
}

// forgetDisk makes the kernel read a disk anew. In a VM that goes on from a template, the kernel may have kept what it
// has read of the template's disk.
func forgetDisk(dev string) error {
	fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlSetInt(fd, unix.BLKFLSBUF, 0)
}

// assembleRoot mounts own, the VM's own disk, and joins it with the image at newRoot. It returns a descriptor of the
// disk's file system, by which it can be made clean at the end, when no path leads to it. ownInit says that the image's
// own init runs.
func assembleRoot(own string, ownInit bool) (int, error) {
	if err := forgetDisk(own); err != nil {
		return -1, fmt.Errorf("reading the disk anew: %w", err)
	}
	// The room of deleted files goes back to the host.
	if err := mountDisk(own, "/disk", 0, "errors=remount-ro,discard"); err != nil {
		return -1, err
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
	return disk, mountSystem(ownInit)
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

// mountPlain puts the directories of container engines onto the plain disk, since
// overlayfs cannot lie on overlayfs. It does so at every boot, whether an engine is
// installed or not, so that no later boot hides files that an engine has written. What
// an image itself keeps in these directories stays visible.
func mountPlain() {
	for _, p := range []struct{ dir, target string }{
		{"/disk/docker", "var/lib/docker"},
		{"/disk/containerd", "var/lib/containerd"},
	} {
		fd, err := mkdirInRoot(p.target, 0o711)
		if err != nil {
			console.Warn(err)
			continue
		}
		if err := bindIfEmpty(p.dir, fd); err != nil {
			console.Warn(fmt.Errorf("mounting %s: %w", p.target, err))
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

// mountSystem mounts what every Linux program expects, inside newRoot. An init of the
// image's own expects an empty /run. Otherwise the image's /run stays, because many
// images keep directories there which their services need, as in a container.
func mountSystem(ownInit bool) error {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []mountPoint{
		{"proc", "proc", "proc", "", quiet, 0o555, false},
		{"sysfs", "sys", "sysfs", "", quiet, 0o555, false},
		{"devtmpfs", "dev", "devtmpfs", "mode=0755", unix.MS_NOSUID, 0o755, false},
		{"devpts", "dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC, 0o755, false},
		{"tmpfs", "dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV, 0o1777, false},
		{"mqueue", "dev/mqueue", "mqueue", "", quiet, 0o755, true},
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
	for link, target := range map[string]string{
		"fd":     "/proc/self/fd",
		"stdin":  "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2",
	} {
		os.Symlink(target, filepath.Join(newRoot, "dev", link)) // devtmpfs is ours; EEXIST is fine
	}
	makeInRoot("tmp", 0o1777)
	if !ownInit {
		makeInRoot("run", 0o755)
		return nil
	}
	fd, err := mkdirInRoot("run", 0o755)
	if err == nil {
		err = unix.Mount("tmpfs", procPath(fd), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	return nil
}

// makeInRoot makes a directory without which most programs run. It warns if it cannot.
func makeInRoot(name string, mode uint32) {
	fd, err := mkdirInRoot(name, mode)
	if err != nil {
		console.Warn(err)
		return
	}
	unix.Close(fd)
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
