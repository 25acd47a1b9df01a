package agent

import (
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// ending is how a guest ends, and on whose word.
type ending int

const (
	// hostEnds: by a restart, where the host says that a restart ends the VMM and that there is no power to switch off.
	hostEnds ending = iota
	guestReboots
	guestPowersOff
)

// RebootCode is the exit code of an agent in a test whose guest reboots.
const RebootCode = 64

// now ends the guest at once.
func (how ending) now() {
	unix.Sync()
	if how == guestReboots || how == hostEnds && endsByRestart() {
		unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// rebootGrace is how long programs have to end when the guest ends itself.
const rebootGrace = 10 * time.Second

// endings are what programs ask of PID 1: reboot and poweroff of busybox by these signals, a reboot of systemd's and of
// sysvinit's by SIGINT.
var endings = map[os.Signal]ending{
	unix.SIGINT: guestReboots, unix.SIGTERM: guestReboots,
	unix.SIGUSR1: guestPowersOff, unix.SIGUSR2: guestPowersOff,
}

// obeySignals has this process, as PID 1, end the guest when a program asks for that by a signal. What else is sent
// to PID 1, such as SIGHUP, does nothing: by itself it would end this process, and the kernel would panic.
func (s *server) obeySignals() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGHUP, unix.SIGQUIT)
	go func() { // for life
		for sig := range asked {
			if how, ok := endings[sig]; ok {
				s.shutdown(rebootGrace, how)
			}
		}
	}()
}

// reboots reports whether the guest is about to boot again.
func (s *server) reboots() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping && s.how == guestReboots
}
