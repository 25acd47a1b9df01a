package secret

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Mount mounts a small file system in memory. The kernel does not swap it out if it can avoid that: it knows how to
// since Linux 6.4 (tmpfs(5), noswap).
func Mount(path string) error {
	const flags, options = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=0755,size=2m,nr_inodes=256"
	err := unix.Mount("secrets", path, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("secrets", path, "tmpfs", flags, options)
	}
	return err
}
