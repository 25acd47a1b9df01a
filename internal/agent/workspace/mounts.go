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
	source     string // what the file system was made of
}

// shown says which mounts are those of a workspace. The number of a device alone does not: when the guest has unmounted
// the workspace, the next overlay may get its number.
type shown struct {
	dev    uint64
	source string
}

// shown returns which mounts are those of w.
func (w *workspace) shown() shown { return shown{w.dev, w.source()} }

// source returns the name by which the overlay of w is listed.
func (w *workspace) source() string { return "workspace-" + w.ID }

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
		m := mountpoint{id: f[0], parent: f[1], dev: unix.Mkdev(uint32(a), uint32(b)), path: unescape.Replace(f[4])}
		if end := slices.Index(f, "-"); end >= 0 && end+2 < len(f) {
			m.source = unescape.Replace(f[end+2])
		}
		list = append(list, m)
	}
	return list
}

// of returns the mounts of a workspace.
func (list mounts) of(s shown) (of mounts) {
	for _, m := range list {
		if s.dev != 0 && m.dev == s.dev && m.source == s.source {
			of = append(of, m)
		}
	}
	return of
}

// uncovered returns an error if something else is mounted over a mount of a workspace.
func (list mounts) uncovered(s shown) error {
	for _, below := range list.of(s) {
		if slices.ContainsFunc(list, func(m mountpoint) bool { return m.parent == below.id && m.path == below.path }) {
			return banger.Errorf(banger.CodeConflict, "something else is mounted at %s, over the workspace", below.path).
				WithHint("unmount it in the VM first: umount %s", below.path)
		}
	}
	return nil
}

// unmount unmounts a workspace wherever it is mounted.
func (list mounts) unmount(s shown, flags int) error {
	if err := list.uncovered(s); err != nil {
		return err
	}
	for _, m := range slices.Backward(list.of(s)) {
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
