package hosttest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/api"
	"banger/internal/private"
	"banger/internal/splice"
)

// Serve runs a daemon of the host in this process: a supervisor behind the real API. It returns the socket of the API.
// The daemon ends with the test.
func (h *Host) Serve() (socket string) {
	h.T.Helper()
	s := h.Supervisor()
	srv := &api.Server{
		Machines:       s,
		Sleepers:       s,
		Updater:        s,
		Inventory:      s,
		Guests:         s.Guests(),
		Sessions:       s.Guests().Sessions(),
		SessionStreams: s.Guests().Sessions(),
		Probes:         s.Guests().Sessions(),
		Connections:    s.Connections(),
		Networks:       s.Networks(),
		Images:         s.Library(),
		Transfers:      s.Library(),
		Kernels:        s.Library(),
		Templates:      s.Templates(),
		Version:        h.version(time.Now()),
		Stop:           func() {},
		Splice:         splice.Copy,
		Log:            slog.New(slog.DiscardHandler),
	}
	Check(h.T, os.MkdirAll(h.Path("run"), 0o700))
	socket = filepath.Join(h.Path("run"), "api.sock")
	ln, err := private.Listen(socket)
	Check(h.T, err)
	ctx, stop := context.WithCancel(context.Background())
	serving := srv.HTTP(ctx)
	go serving.Serve(ln) // ends with Close
	h.T.Cleanup(func() {
		stop()
		serving.Close()
	})
	return socket
}

// version returns what the daemon says of itself.
func (h *Host) version(started time.Time) func(context.Context) api.Version {
	return func(context.Context) api.Version {
		return api.Version{
			Version: banger.Version,
			API:     banger.APIVersion,
			PID:     os.Getpid(),
			Started: started,
			State:   h.Path("state"),
			SQLite:  "3",
			VMM:     "memory 1.0",
			KVM:     "there is no /dev/kvm",
			DNS:     "127.0.0.1:1",
		}
	}
}
