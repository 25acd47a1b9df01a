package shim

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/process"
)

// FirstUID is the first uid of the users that VMs have if the daemon is root. It is far above real users and their
// sub-ids, and below 2^31.
const FirstUID = 2_000_000_000

// Processes are the running shims of one directory of VMs. They are found by their command line, so no daemon and no
// database is needed.
type Processes struct {
	VMs  string   // the directory that holds the directories of the VMs
	Argv []string // the command that starts a shim, without the directory of its VM
}

// Each calls f with the VM and the process of each shim. A shim with a jail starts as root.
func (p Processes) Each(f func(id string, pid int)) error {
	ours := func(uid uint32) bool {
		return uid == 0 || int(uid) == os.Geteuid() || os.Geteuid() == 0 && uid >= FirstUID
	}
	return process.Each(p.Argv, ours, func(dir string, pid int) {
		if id := filepath.Base(dir); filepath.Dir(dir) == p.VMs && banger.ValidID(id) {
			f(id, pid)
		}
	})
}

// Any reports whether a shim runs.
func (p Processes) Any() (found bool) {
	p.Each(func(string, int) { found = true }) // without a list of processes, there is nothing to find
	return found
}

// Has reports whether the shim of a VM exists as a process, even if it does not answer.
func (p Processes) Has(id string) (found bool) {
	p.Each(func(other string, _ int) { found = found || other == id })
	return found
}

// Kill ends the shim of one VM without its cooperation, and waits for its end for at most limit. The VMM ends with
// the shim.
func (p Processes) Kill(id string, limit time.Duration) {
	p.Each(func(found string, pid int) {
		if found == id {
			process.KillOwn(pid, limit)
		}
	})
}

// AwaitEnd waits until the shim of one VM, whose VMM has ended, is no process any more. A shim that is there after
// limit is killed.
func (p Processes) AwaitEnd(id string, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p.Each(func(found string, pid int) {
		if found != id {
			return
		}
		end, err := process.Watch(pid)
		if err != nil {
			return
		}
		defer end.Close()
		if end.Wait(ctx) != nil {
			process.KillOwn(pid, limit)
		}
	})
}
