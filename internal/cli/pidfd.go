package cli

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// exitWatch waits for the end of a process that is not our child (pidfd_open(2)).
type exitWatch struct{ fd int }

func awaitExit(pid int) (*exitWatch, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return &exitWatch{fd: -1}, nil
	}
	return &exitWatch{fd: fd}, err
}

// Wait returns nil when the process has ended.
func (w *exitWatch) Wait(ctx context.Context) error {
	for w.fd >= 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int((100 * time.Millisecond).Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
	}
	return nil
}

// Close releases the descriptor.
func (w *exitWatch) Close() {
	if w.fd >= 0 {
		unix.Close(w.fd)
	}
}
