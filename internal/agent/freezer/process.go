package freezer

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// process is what the kernel tells of a process (proc_pid_stat(5)).
type process struct {
	pid, parent int
	state       string
	kernel      bool   // it is a thread of the kernel
	start       string // with pid it names the process for ever
}

// kernelThread is the kernel's flag PF_KTHREAD.
const kernelThread = 0x00200000

// look returns a process, or false if there is none with that number.
func look(pid int) (p process, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	text := string(data)
	end := strings.LastIndexByte(text, ')') // the name before may hold anything
	if err != nil || end < 0 {
		return p, false
	}
	f := strings.Fields(text[end+1:]) // the first of them is field 3
	if len(f) < 20 {
		return p, false
	}
	parent, _ := strconv.Atoi(f[1])
	flags, _ := strconv.ParseUint(f[6], 10, 64)
	return process{pid: pid, parent: parent, state: f[0], kernel: flags&kernelThread != 0, start: f[19]}, true
}

// ofKernel reports whether p is a thread of the kernel, or a helper that the kernel has started. A process may wait for
// such a helper, and would not stop before that has ended.
func (p process) ofKernel() bool {
	if p.kernel {
		return true
	}
	parent, ok := look(p.parent)
	return ok && parent.kernel
}

// descendsFrom reports whether p is a child of a process, or a child of a child, and so on.
func (p process) descendsFrom(pid int) bool {
	for p.parent > 1 {
		if p.parent == pid {
			return true
		}
		var ok bool
		if p, ok = look(p.parent); !ok {
			return false
		}
	}
	return false
}

// runs reports whether p may execute an instruction.
func (p process) runs() bool { return !strings.Contains("TtZXx", p.state) }

// stops are processes that are stopped by SIGSTOP. Their parents can see it, which is why this is only the second way.
// PID 1 cannot be stopped so.
type stops struct {
	of   func(process) bool // returns true for a process that is to stop
	done []process          // those that got SIGSTOP
}

// waits is the state of a process that waits in the kernel, as that of a vfork(2) waits for its child, which may have
// stopped before. It stops before its next instruction if it got SIGSTOP.
const waits = "D"

// pause is the time between two looks at the processes. No event tells that a process of others has stopped.
const pause = time.Millisecond

// stop stops all processes before the deadline.
func (s *stops) stop(deadline time.Time) error {
	sent := map[process]bool{} // by pid and start alone
	for quiet := 0; ; {
		running := 0
		for _, p := range processes() {
			key := process{pid: p.pid, start: p.start}
			if !p.runs() || sent[key] && p.state == waits || !s.of(p) || p.ofKernel() {
				continue
			}
			running++
			if !sent[key] {
				sent[key] = true
				s.done = append(s.done, key)
				unix.Kill(p.pid, unix.SIGSTOP)
			}
			if time.Now().After(deadline) {
				return banger.Errorf(banger.CodeTimeout, "the process %d does not stop", p.pid)
			}
		}
		if running > 0 {
			quiet = 0
		} else if quiet++; quiet == 2 { // a child with a low number may have appeared behind the first such look
			return nil
		}
		time.Sleep(pause)
	}
}

// undo lets the processes go on.
func (s *stops) undo() {
	for _, p := range s.done {
		if now, ok := look(p.pid); ok && now.start == p.start {
			unix.Kill(p.pid, unix.SIGCONT)
		}
	}
	s.done = nil
}

// processes returns all processes.
func processes() (list []process) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, ok := look(pid); ok {
			list = append(list, p)
		}
	}
	return list
}
