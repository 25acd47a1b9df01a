package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/command"
	"banger/internal/agent/freezer"
	"banger/internal/guest"
)

// residentName is argv[0] of the agent beside the image's init. systemd spares
// processes whose name starts with "@" when it shuts down (systemd.io,
// ROOT_STORAGE_DAEMONS), so the host can reach the guest until the end.
const residentName = "@banger-agent"

// The descriptors that a resident agent inherits from PID 1.
const (
	residentConfigured = 3 // a pipe to PID 1
	residentDisk       = 4
	residentHost       = 5 // the way by which the host asks
)

// IsResident reports whether the arguments of this process are those of the agent that
// stays beside the image's init.
func IsResident(args []string) bool { return args[0] == residentName }

// Resident is the guest of an agent that stays beside the image's init.
type Resident struct {
	machine
	configured *os.File // to PID 1, closed when PID 1 has been notified
	once       sync.Once
}

// NewResident returns the guest of this process, which PID 1 has started as the resident agent, and the descriptor
// by which the host asks.
func NewResident() (r *Resident, host int) {
	unix.CloseOnExec(residentDisk)
	unix.CloseOnExec(residentHost)
	unix.SetNonblock(residentHost, true)
	raiseLimits()
	return &Resident{configured: os.NewFile(residentConfigured, "configured"),
			machine: machine{disk: residentDisk, ownInit: true, freezer: freezer.Open(freezer.Hierarchy)}},
		residentHost
}

// Configure sets the guest up, calls prepared, and lets PID 1 go on to the image's init. If that has booted already,
// Configure lets it go on where it was stopped.
func (r *Resident) Configure(c guest.Config, prepared func()) error {
	err := r.start(c)
	if err == nil {
		prepared()
	}
	if err == nil && r.booted {
		err = r.goOn()
	}
	r.release()
	return err
}

// release lets PID 1 go on to the image's init.
func (r *Resident) release() {
	r.once.Do(func() {
		r.configured.Write([]byte{1})
		r.configured.Close()
	})
}

// Ready returns nil when the image's init obeys commands, and an error when ctx ends
// before.
func (r *Resident) Ready(ctx context.Context) error {
	return awaitInit(ctx, "/proc", systemdSocket)
}

// initPowerOff and initRestart are systemd's signals for an orderly end (systemd(1),
// SIGRTMIN+4 and SIGRTMIN+5).
const (
	initPowerOff = syscall.Signal(34 + 4)
	initRestart  = syscall.Signal(34 + 5)
)

// Shutdown lets the image's init stop its services. If the init hangs, Shutdown makes
// the disks as clean as it can after grace, and ends the guest. It does not return.
func (r *Resident) Shutdown(grace time.Duration, how Ending) {
	end := initPowerOff
	if endsByRestart() {
		end = initRestart
	}
	unix.Kill(1, end)
	time.Sleep(grace) // an init that works ends this process before
	unix.Sync()
	os.WriteFile("/proc/sysrq-trigger", []byte("u"), 0) // remount everything read-only (sysrq.rst)
	how.Now()
}

// BecomeImageInit starts the resident agent, which gets host, the descriptor by which the host asks. It waits until the
// host has configured the guest, and turns PID 1 into the image's init. It returns only after a failure.
func (i *Init) BecomeImageInit(host int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	way := os.NewFile(uintptr(host), "host")
	_, err = os.StartProcess("/proc/self/exe", []string{residentName}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, w, os.NewFile(uintptr(i.disk), "disk"), way},
		Env:   []string{"PATH=" + command.DefaultPath},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("starting the resident agent: %w", err)
	}
	w.Close()
	way.Close()
	if n, _ := r.Read(make([]byte, 1)); n != 1 {
		return errors.New("the resident agent ended before the guest was configured")
	}
	r.Close()
	env := []string{"PATH=" + command.DefaultPath, "TERM=linux", "container="}
	if WaitsBooted() {
		env = append(env, "NOTIFY_SOCKET="+bootedSocket)
	}
	for _, init := range []string{"/sbin/init", "/usr/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		err = syscall.Exec(init, []string{init}, env)
		if !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return fmt.Errorf("the image's init cannot be run: %w", err)
}
