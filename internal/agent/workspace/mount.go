package workspace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// mount mounts a workspace of an earlier boot. m.mu is held, or nobody else has w.
func (w *workspace) mount() error {
	if err := w.mountBase(); err != nil {
		return err
	}
	mount, dev, err := w.overlay(w.Generation)
	if err == nil {
		defer unix.Close(mount)
		err = w.show(mount)
	}
	if err != nil {
		unix.Unmount(w.base(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		return err
	}
	w.dev = dev
	return nil
}

// mountBase mounts the baseline, unless it is mounted.
func (w *workspace) mountBase() error {
	var outside, inside unix.Stat_t
	if unix.Stat(w.path(), &outside) == nil && unix.Stat(w.base(), &inside) == nil && inside.Dev != outside.Dev {
		return nil
	}
	image, err := os.Open(w.image())
	if err != nil {
		return err
	}
	defer image.Close()
	loop, err := attach(image, w.m.load)
	if err != nil {
		return err
	}
	defer loop.Close() // the mount keeps the device
	if err := os.MkdirAll(w.base(), 0o700); err != nil {
		return err
	}
	err = unix.Mount(loop.Name(), w.base(), "ext4", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
	if err != nil {
		return fmt.Errorf("the baseline cannot be mounted: %w", err)
	}
	return nil
}

// attempts is how often a loop device is tried to get. Another program may take the same one.
const attempts = 20

// attach attaches a file to a loop device for reading. The device is free again when nobody has it open or mounted.
// load loads a module of the kernel.
func attach(file *os.File, load func(string) error) (*os.File, error) {
	control, err := openControl("/dev/loop-control", load)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range attempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no loop device is free: %w", err)
		}
		loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("opening a loop device: %w", err)
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attaching a file to a loop device: %w", err)
		}
	}
	return nil, fmt.Errorf("no loop device is free: %w", unix.EBUSY)
}

// openControl opens the device that gives loop devices, and loads its module if that is missing.
func openControl(name string, load func(string) error) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		return f, nil
	}
	cause := load("loop")
	if f, err = os.OpenFile(name, os.O_RDWR, 0); err == nil {
		return f, nil
	}
	if cause == nil {
		cause = banger.Cause(err)
	}
	return nil, banger.Errorf(banger.CodeUnavailable,
		"the guest's kernel has no loop devices, which workspaces need: %w", cause).
		WithHint("run the VM with another kernel: banger kernel pull")
}

// makeUpper makes the directories of a generation of changes. The top has the owner and mode of the baseline's.
func (w *workspace) makeUpper(n int) error {
	for _, dir := range []string{w.generation(n), w.upper(n), w.work(n)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(w.base(), &st); err != nil {
		return err
	}
	if err := errors.Join(unix.Chown(w.upper(n), int(st.Uid), int(st.Gid)),
		unix.Chmod(w.upper(n), st.Mode&0o7777)); err != nil {
		return err
	}
	return errors.Join(syncDir(w.upper(n)), syncDir(w.generation(n)), syncDir(w.path()))
}

// overlay returns a mount of the baseline with a generation of changes on it, which is not shown anywhere yet, and
// its device. The upper directory holds each changed file as a whole (boot.OverlayOptions).
func (w *workspace) overlay(n int) (mount int, dev uint64, err error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, 0, fmt.Errorf("the kernel has no overlayfs: %w", err)
	}
	defer unix.Close(fs)
	for _, option := range [][2]string{{"source", w.source()}, {"redirect_dir", "nofollow"}, {"metacopy", "off"},
		{"index", "off"}, {"lowerdir", w.base()}, {"upperdir", w.upper(n)}, {"workdir", w.work(n)}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return -1, 0, fmt.Errorf("joining baseline and changes: %s: %w", option[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, 0, fmt.Errorf("joining baseline and changes: %w", err)
	}
	if mount, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return -1, 0, fmt.Errorf("joining baseline and changes: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(mount, &st); err != nil {
		unix.Close(mount)
		return -1, 0, err
	}
	return mount, st.Dev, nil
}

// show makes a mount seen at the workspace's path.
func (w *workspace) show(mount int) error {
	dir, _, err := openPath(w.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.MoveMount(mount, "", dir, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mounting it at %s: %w", w.Path, err)
	}
	return nil
}

// openPath opens the directory at a path, and makes it and those above it where they are missing. made are the ones
// that it has made. It follows no symlink.
func openPath(name string) (fd int, made []string, err error) {
	fd, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	at := "/"
	for word := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		at = path.Join(at, word)
		const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		next, err := unix.Openat(fd, word, flags, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(fd, word, 0o755); err == nil {
				made = append(made, at)
				err = unix.Fchmodat(fd, word, 0o755, 0) // whatever the umask is
			}
			if err == nil {
				next, err = unix.Openat(fd, word, flags, 0)
			}
		}
		unix.Close(fd)
		if err != nil {
			unmake(made)
			return -1, nil, pathError(name, at, err)
		}
		fd = next
	}
	return fd, made, nil
}

// unmake removes directories that openPath has made.
func unmake(made []string) {
	for i := len(made) - 1; i >= 0; i-- {
		unix.Rmdir(made[i])
	}
}

func pathError(name, at string, err error) error {
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return banger.Errorf(banger.CodeConflict, "a workspace cannot be at %s, because %s is not a directory", name, at).
			WithHint("use another path, without symlinks")
	case errors.Is(err, unix.EROFS):
		return banger.Errorf(banger.CodeConflict, "%s cannot be made in a VM whose root is read-only", at).
			WithHint("use the path of an empty directory")
	}
	return fmt.Errorf("making %s: %w", at, err)
}

// isEmpty returns an error unless a directory is empty: a workspace would hide its files.
func isEmpty(dir int, name string) error {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", dir))
	if err != nil {
		return err
	}
	defer f.Close()
	if names, _ := f.Readdirnames(1); len(names) > 0 {
		return banger.Errorf(banger.CodeConflict, "a workspace cannot be at %s, because there are files already", name).
			WithHint("use another path, or move the files away")
	}
	return nil
}
