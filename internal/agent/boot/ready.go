package boot

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// systemdSocket is where systemd listens to systemctl, also without a D-Bus daemon.
const systemdSocket = "/run/systemd/private"

// readyEvery is how often systemd is tried; readyAnswer is how long one try may take.
const (
	readyEvery  = 50 * time.Millisecond
	readyAnswer = 2 * time.Second
)

// awaitInit returns when PID 1 has become the image's init and, where that is systemd, when systemd obeys. proc is the
// directory where proc(5) is mounted.
func awaitInit(ctx context.Context, proc, socket string) error {
	for {
		// While a process becomes another program, this may fail for a moment.
		exe, err := os.Readlink(filepath.Join(proc, "1/exe"))
		if own, oerr := os.Readlink(filepath.Join(proc, "self/exe")); err == nil && (oerr != nil || exe != own) {
			if filepath.Base(exe) == "systemd" {
				return awaitSystemd(ctx, socket)
			}
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits for a moment: there is no event for another process that becomes another program, or listens.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(readyEvery):
		return nil
	}
}

// awaitSystemd returns when systemd answers on its socket, which it does once its own start is over; its units may
// still be starting.
func awaitSystemd(ctx context.Context, socket string) error {
	for !answersDBus(ctx, socket) {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// answersDBus reports whether a D-Bus server lets root in. A server that only listens need not obey yet: the kernel
// accepts connections on its behalf.
func answersDBus(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, readyAnswer)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	// 30 is the uid 0 (D-Bus specification, authentication).
	if _, err := io.WriteString(conn, "\x00AUTH EXTERNAL 30\r\n"); err != nil {
		return false
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 1<<10)).ReadString('\n')
	return err == nil && strings.HasPrefix(line, "OK ")
}
