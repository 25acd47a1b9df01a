package firecracker

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// exitCodes are the meanings of Firecracker's exit codes (src/vmm/src/lib.rs, FcExitCode).
var exitCodes = map[int]string{
	148: "made a system call that its filter forbids",
	149: "met a bus error, as when the disk of a file that it maps is full",
	150: "met a segmentation fault",
	151: "met the limit of a file's size",
	152: "did not like its configuration",
	153: "did not like its arguments",
	154: "met the limit of its CPU time",
	155: "met a broken pipe",
	156: "was hung up",
	157: "met an illegal instruction",
}

// reason returns how Firecracker ended. It looks for a guest panic at the end of the console,
// because the restart after a panic looks like any other restart.
func (p *process) reason(c *child.Process, st *os.ProcessState) vmm.Exit {
	ws, _ := st.Sys().(syscall.WaitStatus)
	e := vmm.Exit{Code: st.ExitCode()}
	panicked := c.Stdout.Contains("Kernel panic - not syncing")
	switch {
	case ws.Signaled() && p.halted.Load():
		e = vmm.Exit{Reason: "the guest powered off"}
	case ws.Signaled():
		e.Code, e.Signal = 0, int(ws.Signal())
		e.Reason = fmt.Sprintf("Firecracker was killed by signal %d (%s)", e.Signal, ws.Signal())
	case panicked:
		e.Panic, e.Reason = true, "the guest kernel panicked"
	case e.Code == 0:
		e.Reboot, e.Reason = c.Stdout.Contains(vmm.Restarting), "the guest powered off"
	default:
		why := exitCodes[e.Code]
		if why == "" {
			why = "failed"
		}
		e.Reason = fmt.Sprintf("Firecracker %s (code %d)", why, e.Code)
		if said := sentence(p.lastWord(c)); said != "" {
			e.Reason += ": " + said
		}
	}
	return e
}

// lastWord returns the last line of the log, or of standard error if the log is empty.
func (p *process) lastWord(c *child.Process) string {
	if line := p.log.lastLine(); line != "" {
		return line
	}
	return c.Stderr.LastLine()
}

// halting are the texts that the kernel prints when it has shut down a machine whose power it
// cannot switch off (kernel/reboot.c). The CPUs then halt for ever.
var halting = [][]byte{[]byte("reboot: Power down"), []byte("reboot: System halted")}

// lastWords is a writer that passes the console on to another and calls said when the kernel has
// printed one of halting.
type lastWords struct {
	to    io.Writer
	ready chan struct{} // closed when said may be called
	said  func()
	tail  []byte // end of what was written, shorter than any text of halting
}

func (w *lastWords) Write(b []byte) (int, error) {
	seen := append(w.tail, b...)
	for _, words := range halting {
		if bytes.Contains(seen, words) {
			<-w.ready
			w.said()
		}
	}
	w.tail = append(w.tail[:0], seen[max(0, len(seen)-24):]...)
	return w.to.Write(b)
}
