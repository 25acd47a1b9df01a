package command

import (
	"errors"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
)

// Reaper starts commands. It waits for all children of this process, those that it
// started and the orphans that PID 1 inherits. Nothing else in the process may wait
// for a child.
type Reaper struct {
	group *Group // in which commands start

	mu       sync.Mutex
	children map[int]func(unix.WaitStatus)
	started  chan struct{} // holds one when there may be a first child
}

// NewReaper returns a reaper that starts commands in group. With a nil group, commands
// run in the agent's own.
func NewReaper(group *Group) *Reaper {
	return &Reaper{group: group, children: map[int]func(unix.WaitStatus){}, started: make(chan struct{}, 1)}
}

// Thaw lets frozen commands go on, so that they can end.
func (r *Reaper) Thaw() { r.group.thaw() }

// Prepare makes the group of the commands before the first command needs it. No other call may be made meanwhile.
func (r *Reaper) Prepare() {
	if r.group == nil {
		return
	}
	if err := r.group.open(); err != nil {
		r.group.warnOnce(err)
	}
}

// LimitCPU lets all commands together use a number of thousandths of a CPU; 0 means all. It is called before the first
// command starts.
func (r *Reaper) LimitCPU(thousandths int64) {
	switch {
	case r.group != nil && thousandths != r.group.cpu:
		r.group.cpu = thousandths
		r.group.close() // it is opened with the limit
	case r.group != nil:
	case thousandths != 0:
		console.Warn(errors.New("commands may use all CPUs, because they run in no control group"))
	}
}

// fork runs a program and calls ended, once, with its end. It holds the lock over
// the fork, so that a child that ends at once is known.
func (r *Reaper) fork(path string, args []string, attr *syscall.ProcAttr, ended func(unix.WaitStatus)) (int, error) {
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

// Run waits for children for ever. A thread that waits costs an emulated guest less
// than SIGCHLD, which interrupts another thread first.
func (r *Reaper) Run() {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		switch err {
		case nil:
			r.reap()
		case unix.ECHILD: // without a child there are no orphans either
			<-r.started
		}
		runtime.Gosched() // the next wait may keep the processor for a while
	}
}

func (r *Reaper) reap() {
	for {
		var ws unix.WaitStatus
		r.mu.Lock() // no new child may get the pid before we forget it
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
