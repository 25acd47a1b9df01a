package agent

import (
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper waits for all children, those we started and the orphans that PID 1
// inherits, and tells each of ours its end. Nothing else in the agent may wait.
type reaper struct {
	mu       sync.Mutex
	children map[int]func(unix.WaitStatus)
	started  chan struct{} // holds one when there may be a first child
}

func newReaper() *reaper {
	return &reaper{children: map[int]func(unix.WaitStatus){}, started: make(chan struct{}, 1)}
}

// start runs a program and calls ended, once, with its end. The lock is held
// over the fork, so that a child that ends at once is known.
func (r *reaper) start(path string, args []string, attr *syscall.ProcAttr, ended func(unix.WaitStatus)) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var pid int
	var err error
	forkAsNormal(func() { pid, err = syscall.ForkExec(path, args, attr) })
	if err == nil {
		r.children[pid] = ended
		select {
		case r.started <- struct{}{}:
		default:
		}
	}
	return pid, err
}

// run reaps for ever. A thread that waits costs an emulated guest less than
// SIGCHLD, which interrupts another thread first.
func (r *reaper) run() {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		switch err {
		case nil:
			r.reap()
		case unix.ECHILD: // orphans come of children only
			<-r.started
		}
		runtime.Gosched() // the wait that follows may keep the processor for a while
	}
}

func (r *reaper) reap() {
	for {
		var ws unix.WaitStatus
		r.mu.Lock() // a pid that is free again must not begin anew before we forget it
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		ended := r.children[pid]
		delete(r.children, pid)
		r.mu.Unlock()
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended != nil {
			ended(ws)
		}
	}
}
