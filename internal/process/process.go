// Package process finds and ends processes of this program that outlive the process that started them. It must not
// know what they do.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Each calls f for each process that belongs to a user for whom ours returns true, and whose arguments are argv and
// one more, which it passes to f. The first argument is not compared, because each process chooses this name of the
// program itself.
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
		args := Arguments(pid)
		if len(args) == len(argv)+1 && strings.Join(args[1:len(args)-1], " ") == strings.Join(argv[1:], " ") {
			f(args[len(args)-1], pid)
		}
	}
	return nil
}

// Arguments returns the arguments of a process, or nil if it has ended or hides them.
func Arguments(pid int) []string {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(cmdline) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
}

// isOf reports whether a process belongs to a user of ours. Other users' processes are not read further, because they
// could delay the read of their command line.
func isOf(pid string, ours func(uid uint32) bool) bool {
	var st syscall.Stat_t
	return syscall.Stat("/proc/"+pid, &st) == nil && ours(st.Uid)
}

// KillOwn kills a process if it runs the same program as this one. The process need not be a child. KillOwn returns
// when the process has ended, or after limit. When it has ended, its children with a parent-death signal have got
// that signal.
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
	if !runsOurProgram(pid) || !h.Alive() { // in this order, the checks are about the process of h
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		end.Wait(ctx)
	}
}

// runsOurProgram reports whether a process runs the same program as this one, even if the program's file was replaced
// meanwhile. For a process that is not dumpable, the kernel does not answer an ordinary user. The answer is then
// true, because only this user can have started the process.
func runsOurProgram(pid int) bool {
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if errors.Is(err, fs.ErrPermission) {
		return true
	}
	ours, oerr := os.Readlink("/proc/self/exe")
	name := func(path string) string { return filepath.Base(strings.TrimSuffix(path, " (deleted)")) }
	return err == nil && oerr == nil && name(theirs) == name(ours)
}

// End waits for the end of a process, which need not be a child (pidfd_open(2)).
type End struct{ fd int }

// Watch begins to watch for the end of a process. A process that does not exist counts as ended. The caller must
// close the End.
func Watch(pid int) (End, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return End{-1}, nil
	}
	return End{fd}, os.NewSyscallError("pidfd_open", err)
}

// glance is how long Wait waits for the process before it checks its context again.
const glance = 100 * time.Millisecond

// Wait returns nil when the process has ended, or the error of ctx.
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

// Signal sends a signal to the process. It is no error if the process has ended.
func (e End) Signal(sig syscall.Signal) error {
	if e.fd < 0 {
		return nil
	}
	err := unix.PidfdSendSignal(e.fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}

// Close ends the watch.
func (e End) Close() {
	if e.fd >= 0 {
		unix.Close(e.fd)
	}
}

// ErrSilent means that a process has ended before it was ready, and has not said why.
var ErrSilent = errors.New("it ended without a word")

// maxWhy is the most that is read of what a process says instead of being ready, in bytes.
const maxWhy = 4 << 10

// AwaitReady returns when the process that has the other end of r writes "ready" and closes it. What it writes instead
// is the error. The error is that of ctx if ctx ends before.
func AwaitReady(ctx context.Context, r *os.File) error {
	defer context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })()
	line, err := io.ReadAll(io.LimitReader(r, maxWhy))
	switch {
	case string(line) == "ready\n":
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("reading whether it is ready: %w", err)
	case len(line) == 0:
		return ErrSilent
	}
	return errors.New(strings.TrimSpace(string(line)))
}
