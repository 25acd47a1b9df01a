package child

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Stop stops the VMM by SIGSTOP and returns when all its threads have stopped (signal(7)). A
// failure leaves it running.
func (p *Process) Stop(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stopping the VMM's process: %w", err)
	}
	if err := p.process.Signal(unix.SIGSTOP); err != nil {
		return fmt.Errorf("stopping the VMM's process: %w", err)
	}
	stopped := make(chan error, 1)
	// This ends when the process stops or ends. A stop can be undone before it is complete:
	// then it lives until the next one, or as long as the process does.
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

// Continue lets a VMM that is stopped run again. One that runs or has ended is left alone.
func (p *Process) Continue() error {
	if err := p.process.Signal(unix.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("continuing the VMM's process: %w", err)
	}
	return nil
}

// awaitStop waits until the last thread of a child has stopped (waitid(2)), and leaves its
// state and its end to the goroutine that waits for the process.
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
