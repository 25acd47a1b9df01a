package daemon

import (
	"context"
	"log/slog"
	"net/http"

	"banger/internal/web"
	page "banger/web"
)

// uiArgv starts the process of the web UI.
func uiArgv(o Options) []string { return []string{"/proc/self/exe", "webui", o.RunDir, o.Socket} }

// RunUI runs the process of the web UI, which passes requests on to the daemon's socket, and those below
// /ui/local/ to local. It calls ready once the process can be asked to open.
func RunUI(ctx context.Context, runDir, socket string, local http.Handler, log *slog.Logger, ready func()) error {
	s := &web.Server{Socket: socket, Files: page.Files(), Local: local, Log: log}
	return s.Run(ctx, runDir, ready)
}

// ui is the web UI, as the API knows it.
type ui struct{ *web.Launcher }

func (u ui) Open(ctx context.Context) (string, error) {
	o, err := u.Launcher.Open(ctx)
	return o.URL, err
}
