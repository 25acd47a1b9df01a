package workspace

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
)

// mounts are the mounts of the guest, as proc_pid_mountinfo(5) lists them.
type mounts []mountpoint

type mountpoint struct {
	id, parent string
	dev        uint64
	path       string
}

// unescape reads the characters that are escaped in the list.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")

// readMounts lists the mounts. It touches none of them, because some may not answer.
func readMounts() (list mounts) {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		major, minor, _ := strings.Cut(f[2], ":")
		a, _ := strconv.ParseUint(major, 10, 32)
		b, _ := strconv.ParseUint(minor, 10, 32)
		list = append(list, mountpoint{f[0], f[1], unix.Mkdev(uint32(a), uint32(b)), unescape.Replace(f[4])})
	}
	return list
}

// of returns the mounts of a device.
func (list mounts) of(dev uint64) (of mounts) {
	for _, m := range list {
		if dev != 0 && m.dev == dev {
			of = append(of, m)
		}
	}
	return of
}

// uncovered returns an error if something else is mounted over a mount of a device.
func (list mounts) uncovered(dev uint64) error {
	for _, below := range list.of(dev) {
		if slices.ContainsFunc(list, func(m mountpoint) bool { return m.parent == below.id && m.path == below.path }) {
			return banger.Errorf(banger.CodeConflict, "something else is mounted at %s, over the workspace", below.path).
				WithHint("unmount it in the VM first: umount %s", below.path)
		}
	}
	return nil
}

// unmount unmounts a device wherever it is mounted.
func (list mounts) unmount(dev uint64, flags int) error {
	if err := list.uncovered(dev); err != nil {
		return err
	}
	for _, m := range slices.Backward(list.of(dev)) {
		if err := unix.Unmount(m.path, flags|unix.UMOUNT_NOFOLLOW); err != nil {
			return err
		}
	}
	return nil
}

// processesIn returns how many processes have their directory or their root on a device.
func processesIn(dev uint64) (n int) {
	if dev == 0 {
		return 0
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		for _, link := range []string{"/cwd", "/root"} {
			var st unix.Statx_t
			err := unix.Statx(unix.AT_FDCWD, p+link, unix.AT_STATX_DONT_SYNC, 0, &st)
			if err == nil && unix.Mkdev(st.Dev_major, st.Dev_minor) == dev {
				n++
				break
			}
		}
	}
	return n
}
