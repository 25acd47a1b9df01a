package supervisor

import (
	"time"

	"golang.org/x/sys/unix"
)

// pidfdOpen returns a descriptor that becomes readable when the process ends
// (pidfd_open(2)).
func pidfdOpen(pid int) (int, error) { return unix.PidfdOpen(pid, 0) }

func awaitPidfd(fd int, limit time.Duration) {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != unix.EINTR && (n > 0 || err != nil) {
			return
		}
	}
}
