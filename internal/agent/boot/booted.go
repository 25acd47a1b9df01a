package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
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
	if r.booted, err = renew.Note("/"); err != nil {
		return err
	}
	return r.Freeze(context.Background())
}

// renew makes new what the boot has made and no other VM may have, and then lets all processes go on.
func (r *Resident) renew() error {
	err := errors.Join(renew.BootID(), r.booted.Renew("/", r.UpperDir()))
	for name, signal := range renew.Services {
		err = errors.Join(err, renew.Signal(name, signal))
	}
	r.goOn()
	return err
}

// goOn lets all processes go on. Where PID 1 is systemd, goOn returns when that has started again, with the new ids.
func (r *Resident) goOn() {
	defer r.Thaw()
	if exe, err := os.Readlink("/proc/1/exe"); err != nil || filepath.Base(exe) != "systemd" {
		return
	}
	conn, err := net.Dial("unix", systemdSocket) // systemd closes it when it starts again
	if err == nil {
		defer conn.Close()
		err = unix.Kill(1, unix.SIGTERM) // systemd(1), SIGNALS
	}
	if err != nil {
		console.Warn(fmt.Errorf("systemd does not learn of its new ids: %w", err))
		return
	}
	r.Thaw()
	conn.SetReadDeadline(time.Now().Add(reexecTime))
	io.Copy(io.Discard, conn)
}
