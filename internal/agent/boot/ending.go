package boot

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// Ending is how a guest ends, and at whose request.
type Ending int

const (
	// HostEnds is an end that the host asks for: a power-off, or a restart where the host has said at the boot that a
	// restart ends the VMM and that there is no power to switch off.
	HostEnds Ending = iota
	// GuestReboots is a reboot that a program of the guest asks for.
	GuestReboots
	// GuestPowersOff is a power-off that a program of the guest asks for.
	GuestPowersOff
)

// Now ends the guest at once. It does not return.
func (how Ending) Now() {
	unix.Sync()
	if how == GuestReboots || how == HostEnds && endsByRestart() {
		unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func endsByRestart() bool { return kernelArgument(guest.RestartArgument) }

// endings are the signals by which programs ask PID 1 for an end: busybox's reboot, halt and poweroff send SIGTERM,
// SIGUSR1 and SIGUSR2, the reboot of systemd and of sysvinit sends SIGINT.
var endings = map[os.Signal]Ending{
	unix.SIGINT: GuestReboots, unix.SIGTERM: GuestReboots,
	unix.SIGUSR1: GuestPowersOff, unix.SIGUSR2: GuestPowersOff,
}

// OnSignal calls end, in a goroutine for life, when a program asks this process, as PID 1, by a signal to end the
// guest. Other signals to PID 1, such as SIGHUP, do nothing: by default they would end this process, and the kernel
// would panic.
func OnSignal(end func(Ending)) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		for sig := range asked {
			if how, ok := endings[sig]; ok {
				end(how)
			}
		}
	}()
}
