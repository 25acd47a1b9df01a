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

// exitCodes are what Firecracker says by its exit code (src/vmm/src/lib.rs, FcExitCode).
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

// reason says how Firecracker ended; a guest panic is looked for at the end of the
// console, because the restart after it looks like any other.
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

// lastWord is the last line of the log, or of standard error.
func (p *process) lastWord(c *child.Process) string {
	if line := p.log.lastLine(); line != "" {
		return line
	}
	return c.Stderr.LastLine()
}

// halting is what the kernel prints when it has switched off a machine whose power it
// cannot switch off (kernel/reboot.c): the CPUs then halt for ever.
var halting = [][]byte{[]byte("reboot: Power down"), []byte("reboot: System halted")}

// lastWords passes a console on and waits for the kernel's last words.
type lastWords struct {
	to    io.Writer
	ready chan struct{} // closed when said may be called
	said  func()
	tail  []byte // of what came, shorter than any of the words
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
