package boot

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/renew"
	"banger/internal/guest"
)

// bootedSocket is where systemd says that all units have started (sd_notify(3)). The name of an abstract socket needs
// no directory.
const bootedSocket = "@banger-booted"

// reexecTime is how long systemd may take to start again.
const reexecTime = time.Minute

// WaitsBooted reports whether the guest is to boot the image's init before it waits for its host.
func WaitsBooted() bool { return kernelArgument(guest.BootedArgument) }

// Boot lets PID 1 become the image's init. It returns when that has started its units, and all processes are stopped.
func (r *Resident) Boot() error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: bootedSocket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listening to the image's init: %w", err)
	}
	defer conn.Close()
	r.release()
	for buf := make([]byte, 4<<10); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("listening to the image's init: %w", err)
		}
		if slices.Contains(strings.Split(string(buf[:n]), "\n"), "READY=1") {
			break
		}
	}
	r.booted = true
	return r.Freeze(context.Background())
}

// goOn lets all processes go on, with a boot id of their own. It returns when systemd has started again, which keeps
// ids in memory. After an error, nothing goes on.
func (r *Resident) goOn() error {
	if err := renew.BootID(); err != nil {
		return err
	}
	if err := renew.Tell(); err != nil {
		return err
	}
	conn, err := net.Dial("unix", systemdSocket) // systemd closes it when it starts again
	if err == nil {
		defer conn.Close()
		err = unix.Kill(1, unix.SIGTERM) // systemd(1), SIGNALS
	}
	if err != nil {
		return fmt.Errorf("telling systemd of its new ids: %w", err)
	}
	r.Thaw()
	conn.SetReadDeadline(time.Now().Add(reexecTime))
	io.Copy(io.Discard, conn)
	return nil
}
