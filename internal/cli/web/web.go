// Package web has the command that opens the web UI in a browser. It must not know what the UI shows.
package web

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/host"
	"banger/internal/local"
)

// New returns the command ui.
func New(a *command.App) *cobra.Command {
	var printOnly, end bool
	c := &cobra.Command{
		Use:   "ui",
		Short: "Open the web UI in a browser",
		Args:  command.Usage(cobra.NoArgs),
		Long: `Open the web UI in a browser, and print its address. The address works once, and for a minute: it
gives one browser a session. The UI answers on 127.0.0.1 alone, and closes when no browser has used
it for an hour. From another computer, forward its port: ssh -L PORT:127.0.0.1:PORT HOST. With a context, the
command does that itself, for as long as it runs.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printOnly && end {
				return command.UsageErrorf("a UI that is closed has no address to print: leave out --print or --close")
			}
			daemon, err := a.Connect(cmd.Context())
			if err != nil {
				return err
			}
			if end {
				return daemon.CloseUI(cmd.Context())
			}
			address, err := daemon.OpenUI(cmd.Context())
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if a.Context == nil {
				return show(ctx, a, address, printOnly)
			}
			ln, port, err := near(address)
			if err != nil {
				return err
			}
			if err := show(ctx, a, address, printOnly); err != nil {
				ln.Close()
				return err
			}
			a.Forward(ctx, ln, port)
			return nil
		},
	}
	c.Flags().BoolVar(&printOnly, "print", false, "print the address, and open no browser")
	c.Flags().BoolVar(&end, "close", false, "close the UI, and end the sessions of all browsers")
	return c
}

// show prints the address of the UI and, unless printOnly is set, opens it in a browser.
func show(ctx context.Context, a *command.App, address string, printOnly bool) error {
	fmt.Fprintln(a.Stdout, address)
	if printOnly {
		return nil
	}
	return browse(ctx, a.Paths.Run, address)
}

// near listens on this host where the UI of another host listens there, as its page answers to no other port.
func near(address string) (net.Listener, uint16, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, 0, banger.Errorf(banger.CodeInternal, "the UI has no address")
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:"+u.Port())
	if err != nil {
		return nil, 0, banger.Errorf(banger.CodeConflict, "port %s of this host is in use, and the UI there has that one too",
			u.Port()).WithHint("open it on another port: banger ui --close, and again")
	}
	return ln, uint16(ln.Addr().(*net.TCPAddr).Port), nil
}

// readyFD is the descriptor on which the process of the UI says that it answers.
const readyFD = 3

// Serve serves the UI, and calls ready once it answers. socket is that of the daemon. local answers what browsers ask
// about the user's files on this host.
type Serve func(ctx context.Context, runDir, socket string, local http.Handler, log *slog.Logger, ready func()) error

// NewProcess returns the hidden command of the process that serves the UI.
func NewProcess(a *command.App, run Serve) *cobra.Command {
	return &cobra.Command{
		Use:    "webui RUNDIR SOCKET",
		Hidden: true,
		Args:   command.Usage(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			syscall.CloseOnExec(readyFD)
			report := os.NewFile(readyFD, "ready")
			if home, err := host.HomeDir(); err == nil {
				os.Setenv("HOME", home) // for git, also if a daemon without it has started this process
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			files := &local.Local{Paths: a.Paths, Client: client.New(args[1]), Hold: a.Daemon.Hold}
			defer files.Close()
			err := run(ctx, args[0], args[1], files.Handler(), log, func() { fmt.Fprintln(report, "ready"); report.Close() })
			if err != nil {
				fmt.Fprint(report, err) // which fails once that is ready
			}
			return err
		},
	}
}

// browse opens an address in the user's browser, if the host has a screen. All users of the host see the arguments of
// a program, and the address is a secret, so the browser gets a file in dir that leads there. Without a screen the
// address on the terminal has to do.
func browse(ctx context.Context, dir, address string) error {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" && os.Getenv("BROWSER") == "" {
		return nil
	}
	old, _ := filepath.Glob(filepath.Join(dir, "ui-*.html"))
	for _, path := range old { // their addresses are used up
		os.Remove(path)
	}
	f, err := os.CreateTemp(dir, "ui-*.html") // mode 0600
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, `<!doctype html><meta http-equiv="refresh" content="0; url=%s"><title>banger</title>`+"\n",
		html.EscapeString(address))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	exec.CommandContext(ctx, "xdg-open", f.Name()).Run() // a host without it has no browser to open either
	return nil
}
