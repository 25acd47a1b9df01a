// Package launch carries out one start of a VM: from its plan, over its ports and its shim, to a guest that is ready.
// It must not know why a VM starts or what its state is, and it stores nothing.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"banger"
	"banger/internal/guest"
	"banger/internal/networks"
	"banger/internal/plan"
	"banger/internal/reserve"
	"banger/internal/shim"
	"banger/internal/sshconf"
	"banger/internal/warm"
)

// Launcher has what all starts need. The caller owns its parts.
type Launcher struct {
	Plans    plan.Planner
	Networks *networks.Networks
	Warm     *warm.Warm // nil: all VMs boot
	ShimArgv []string
	// InitTime is the time that an image's init may take until it runs and, if it is systemd, accepts requests. 0 means
	// 30 s.
	InitTime time.Duration

	places chan struct{} // for emulated boots, which need much CPU
}

// New returns a Launcher with the parts of l.
func New(l Launcher) *Launcher {
	l.places = make(chan struct{}, runtime.NumCPU())
	return &l
}

// Machine is the VM that is started, as its owner knows it. Only the owner calls these methods.
type Machine interface {
	Snapshot() banger.VM
	Update(func(*banger.VM))
	// Up says that the VMM was started. Ended then gets its end, and Down says that a start has taken that from Ended.
	Up()
	Ended() <-chan shim.Status
	Down()
}

// Start is one start of a VM. Boot, or Restore and then Welcome, carry it out.
type Start struct {
	*Launcher
	Machine Machine
	VM      banger.VM // the VM before the start
	Fresh   bool      // no guest has used its disk
	Renew   bool      // its disk is a copy of another VM's, and this is its first start
	UID     uint32    // user of its VMM if the daemon is root
	Shim    shim.Client
	Agent   guest.Client
	Life    context.Context // ends with the VM or the daemon
	Log     *slog.Logger
	Watch   *Stopwatch
	Emit    banger.Emit
	// Sockets are those of a VM that goes on. If they are nil, the forwards of its spec are opened.
	Sockets *networks.Sockets
}

// Times of a boot. bootTimeout is ten times the time of an emulated boot on an idle machine. initTime is the time
// that an image's init may take after that.
const (
	bootTimeout = 2 * time.Minute
	initTime    = 30 * time.Second
)

// errPanic means that a boot ended in a panic of the guest's kernel.
var errPanic = errors.New("the guest kernel panicked")

// HostKey returns the VM's SSH host key. The key is made with the VM and kept among its files. A VM of an earlier
// banger gets one at its next start.
func (l *Launcher) HostKey(id string) (private, public string, err error) {
	key, public, err := sshconf.MakeKey(l.Plans.Dirs.HostKey(id), "banger VM "+id)
	return string(key), public, reserve.Explain(err, l.Plans.Dirs.State)
}

// Stopwatch collects the timings of a start.
type Stopwatch struct {
	last    time.Time
	Timings []banger.Timing
}

// NewStopwatch returns a Stopwatch that runs.
func NewStopwatch() *Stopwatch { return &Stopwatch{last: time.Now()} }

// Lap adds the time since the last lap.
func (w *Stopwatch) Lap(stage string) {
	now := time.Now()
	w.Timings = append(w.Timings, banger.Timing{Stage: stage, Millis: now.Sub(w.last).Milliseconds()})
	w.last = now
}

// Note writes the timings of a start that was carried out into vm, and how it went in words.
func (w *Stopwatch) Note(vm *banger.VM) {
	vm.Timings, vm.Start = KeepPreparation(vm.Timings, w.Timings), w.words(vm.Template)
}

// words says how a VM started, and how long that took. It started from a template or, if template is "", it went on
// from a snapshot or booted.
func (w *Stopwatch) words(template string) string {
	how, took := "cold", int64(0)
	if template != "" {
		how = "warm (template " + template + ")"
	}
	for _, t := range w.Timings {
		took += t.Millis
		if t.Stage == "resume" {
			how = "fork"
		}
	}
	return fmt.Sprintf("%s, %.2f s", how, float64(took)/1000)
}

// KeepPreparation returns the timings of the creation in old, followed by those of a start.
func KeepPreparation(old, start []banger.Timing) []banger.Timing {
	var kept []banger.Timing
	for _, t := range old {
		switch t.Stage {
		case "image", "kernel", "disk":
			kept = append(kept, t)
		}
	}
	return append(kept, start...)
}
