// Package process finds and ends processes of ours that outlive the one that started them. It must not know what they do.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// Each calls f for each process of a user for whom ours returns true and whose arguments are argv, but for the first, and
// one more, which f gets. The first one is the program's name, which each process chooses for itself.
func Each(argv []string, ours func(uid uint32) bool, f func(last string, pid int)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !isOf(e.Name(), ours) {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
		if len(args) == len(argv)+1 && strings.Join(args[1:len(args)-1], " ") == strings.Join(argv[1:], " ") {
			f(args[len(args)-1], pid)
		}
	}
	return nil
}

// isOf returns true if a process belongs to a user of ours. Others may keep us waiting for their command line.
func isOf(pid string, ours func(uid uint32) bool) bool {
	var st syscall.Stat_t
	return syscall.Stat("/proc/"+pid, &st) == nil && ours(st.Uid)
}

// KillOwn ends a process that may not be our child, if it runs the program that this one runs, and returns when it has
// ended, or after limit. Its children with a parent-death signal have got that then.
func KillOwn(pid int, limit time.Duration) {
	h, err := vmm.HandleOf(pid)
	if err != nil {
		return
	}
	end, err := Watch(pid)
	if err != nil {
		return
	}
	defer end.Close()
	if !runsOurProgram(pid) || !h.Alive() { // asked in this order, the answer is about the process of h
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		end.Wait(ctx)
	}
}

// runsOurProgram returns true if a process runs the program that this one runs, also where that was replaced meanwhile. The
// kernel does not tell an ordinary user of a process that is not to be looked at; that only its user can have
// started it is enough then.
func runsOurProgram(pid int) bool {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if errors.Is(err, fs.ErrPermission) {
		return true
	}
	ours, oerr := os.Readlink("/proc/self/exe")
	name := func(path string) string { return filepath.Base(strings.TrimSuffix(path, " (deleted)")) }
	return err == nil && oerr == nil && name(theirs) == name(ours)
}

// End is the end of a process, which may not be our child (pidfd_open(2)).
type End struct{ fd int }

// Watch begins to watch for the end of a process; one that there is not has ended. The caller closes the End.
func Watch(pid int) (End, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return End{-1}, nil
	}
	return End{fd}, os.NewSyscallError("pidfd_open", err)
}

// glance is how long Wait looks at the process before it looks at its context.
const glance = 100 * time.Millisecond

// Wait returns nil when the process has ended, and else the error of ctx.
func (e End) Wait(ctx context.Context) error {
	for e.fd >= 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}, int(glance.Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
	return nil
}

// Close ends the watch.
func (e End) Close() {
	if e.fd >= 0 {
		unix.Close(e.fd)
	}
}
