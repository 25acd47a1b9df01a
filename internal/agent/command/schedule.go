package command

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Timer slack in nanoseconds (PR_SET_TIMERSLACK(2const)): the agent's, and the
// kernel's default, which commands get.
const (
	calmSlack    = "2000000"
	defaultSlack = 50_000
)

// CalmThreads makes this process's threads, and those it starts later, cost an emulated
// CPU less; commands get the kernel's defaults again. The Go runtime's monitor sleeps
// for 20 µs at a time while any goroutine runs, though a wake-up costs more than that.
// Timer slack lets it sleep longer. As batch tasks (sched(7)) the threads do not
// interrupt a command each time it writes or closes something, only when their turn has
// come. Without the rights for this, the agent is slower and otherwise the same.
func CalmThreads() {
	tasks, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range tasks {
		name := filepath.Base(t)
		// The file can be written below /proc/TID only, not below /proc/PID/task.
		os.WriteFile(filepath.Join("/proc", name, "timerslack_ns"), []byte(calmSlack), 0)
		if tid, err := strconv.Atoi(name); err == nil {
			setPolicy(tid, unix.SCHED_BATCH)
		}
	}
}

// forkAsNormal calls fork on a thread whose child inherits what the kernel gives
// an ordinary process.
func forkAsNormal(fork func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, defaultSlack, 0, 0, 0)
	setPolicy(0, unix.SCHED_NORMAL)
	defer setPolicy(0, unix.SCHED_BATCH)
	fork()
}

func setPolicy(tid int, policy uint32) {
	unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy}, 0)
}
