package child

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Stop stops the VMM with SIGSTOP and returns when all its threads have stopped (signal(7)). If it
// fails, the VMM still runs.
func (p *Process) Stop(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stopping the VMM's process: %w", err)
	}
	if err := p.process.Signal(unix.SIGSTOP); err != nil {
		return fmt.Errorf("stopping the VMM's process: %w", err)
	}
	stopped := make(chan error, 1)
	// This goroutine ends when the process stops or ends. If the stop is undone before it is complete,
	// the goroutine lives until the next stop or until the process ends.
	go func() { stopped <- awaitStop(p.process.Pid) }()
	var err error
	select {
	case err = <-stopped:
	case <-p.done:
		err = os.ErrProcessDone
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	if cerr := p.Continue(); cerr != nil {
		return cerr
	}
	return fmt.Errorf("stopping the VMM's process: %w", err)
}

// Continue lets a stopped VMM run again. It does nothing to a VMM that runs or has ended.
func (p *Process) Continue() error {
	if err := p.process.Signal(unix.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("continuing the VMM's process: %w", err)
	}
	return nil
}

// awaitStop waits until the last thread of a child has stopped (waitid(2)). It does not consume the
// child's state or end, which belong to the goroutine that waits for the process.
func awaitStop(pid int) error {
	var info unix.Siginfo
	err := error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
	}
	const stopped = 5 // CLD_STOPPED (asm-generic/siginfo.h)
	if errors.Is(err, unix.ECHILD) || err == nil && info.Code != stopped {
		return os.ErrProcessDone
	}
	return os.NewSyscallError("waitid", err)
}
