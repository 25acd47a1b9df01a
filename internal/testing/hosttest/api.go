package hosttest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing/fstest"
	"time"

	"banger"
	"banger/internal/api"
	"banger/internal/api/wire"
	"banger/internal/comparison"
	"banger/internal/history"
	"banger/internal/private"
	"banger/internal/report"
	"banger/internal/reset"
	"banger/internal/splice"
	"banger/internal/supervisor"
	"banger/internal/web"
)

// Serve runs a daemon of the host in this process: a supervisor behind the real API. It returns the socket of the API.
// The daemon ends with the test.
func (h *Host) Serve() (socket string) {
	h.T.Helper()
	s := h.Supervisor()
	compares := comparison.New(s.Templates().Plans(), s.Snapshots(), h.Options.ShimArgv, slog.New(slog.DiscardHandler))
	h.T.Cleanup(compares.Close)
	socket = filepath.Join(h.Path("run"), "api.sock")
	page := ui{&web.Server{Socket: socket, Files: fstest.MapFS{"index.html": {Data: []byte("the page")}},
		Log: slog.New(slog.DiscardHandler)}}
	h.T.Cleanup(func() { page.Close(context.Background()) })
	histories := history.New(func() []banger.VM { return s.List(func(banger.VM) bool { return true }) }, s.Guests().Sample)
	h.T.Cleanup(histories.Start())
	srv := &api.Server{
		Machines:       s,
		Sleepers:       s,
		Updater:        s,
		Inventory:      s,
		Histories:      histories,
		Guests:         s.Guests(),
		Sessions:       s.Guests().Sessions(),
		SessionStreams: s.Guests().Sessions(),
		Probes:         s.Guests().Sessions(),
		Workspaces:     s.Guests().Workspaces(compares),
		Secrets:        s.Custody(),
		Connections:    s.Connections(),
		Decisions:      s.Guests().Decisions(),
		Networks:       s.Networks(),
		Images:         s.Library(),
		Transfers:      s.Library(),
		Kernels:        s.Library(),
		Templates:      s.Templates(),
		Snapshots:      s.Snapshots(),
		Comparisons:    compares,
		UI:             page,
		Reporter:       h.reporter(s),
		Version:        h.version(time.Now()),
		Stop:           func() {},
		Splice:         splice.Copy,
		Log:            slog.New(slog.DiscardHandler),
	}
	Check(h.T, os.MkdirAll(h.Path("run"), 0o700))
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

// reporter reports on the host. Its log has two lines.
func (h *Host) reporter(s *supervisor.Supervisor) *report.Reporter {
	Check(h.T, os.WriteFile(h.Path("daemon.log"), []byte("one\ntwo\n"), 0o600))
	return &report.Reporter{
		Home:      reset.Home{State: h.Path("state"), Run: h.Path("run"), ShimArgv: h.Options.ShimArgv},
		LogFile:   h.Path("daemon.log"),
		Version:   h.version(time.Now()),
		VMs:       s.List,
		Library:   s.Library(),
		Templates: s.Templates().List,
		Snapshots: s.Snapshots().List,
	}
}

// ui is the web UI in this process.
type ui struct{ *web.Server }

func (u ui) Open(context.Context) (string, error) {
	o, err := u.Server.Open()
	return o.URL, err
}

func (u ui) Close(ctx context.Context) error {
	u.Server.Close(ctx)
	return nil
}

// AddTemplate makes a template on the host, with an image that is not there.
func (h *Host) AddTemplate(id string) {
	h.T.Helper()
	dir := filepath.Join(h.Path("state"), "templates", "ready", id)
	Check(h.T, os.MkdirAll(dir, 0o700))
	about := fmt.Sprintf(`{"shape":"%scd","id":"%[1]s","image":"debian","image_digest":"sha256:0","kernel":"test",`+
		`"vmm":"memory 1.0","cpus":1,"memory":536870912,"network":"user","size":4096,`+
		`"created_at":"2026-11-29T00:00:00Z"}`, id)
	Check(h.T, os.WriteFile(filepath.Join(dir, "template.json"), []byte(about), 0o600))
}

// version returns what the daemon says of itself.
func (h *Host) version(started time.Time) func(context.Context) wire.Version {
	return func(context.Context) wire.Version {
		return wire.Version{
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
