package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/mux"
	"banger/internal/splice"
)

// The ports of a link's streams: that of the daemon's API, and above ports those of TCP on the host's 127.0.0.1.
const (
	api   = 1
	ports = 1 << 16
)

// quiet are options that keep ssh to this one purpose, whatever else the user's configuration wants of the host.
var quiet = []string{"-a", "-x", "-e", "none", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none",
	"-o", "PermitLocalCommand=no"}

// Command returns ssh with a command line of banger on the host. With terminal it has one there. The caller sets where
// it reads and writes.
//
// An interrupt does not end ssh: what is interrupted has to tell the daemon so.
func (c Context) Command(ctx context.Context, terminal bool, args ...string) (*exec.Cmd, error) {
	destination, err := c.destination()
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "there is no ssh in PATH").
			WithHint("install OpenSSH's client (Debian: openssh-client)")
	}
	program := c.Program
	if program == "" {
		program = "banger"
	}
	line := quoted(program)
	for _, arg := range args {
		line += " " + quoted(arg)
	}
	tty := map[bool]string{true: "-t", false: "-T"}[terminal]
	argv := append(append([]string{"-c", `trap '' INT; exec ssh "$@"`, "ssh", tty}, quiet...), destination...)
	return exec.CommandContext(ctx, "sh", append(argv, line)...), nil
}

// quoted returns a word as a POSIX shell reads it (POSIX.1-2017, 2.2.2).
func quoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// Link is a way to the daemon of a host. It is made when it is first used.
type Link struct {
	Context Context
	Stderr  io.Writer // where ssh, and banger on the host, say what goes wrong

	mu  sync.Mutex
	mux *mux.Mux
	cmd *exec.Cmd
}

// channel is what a process reads and writes.
type channel struct {
	out *os.File
	in  io.WriteCloser
}

func (c channel) Read(p []byte) (int, error)  { return c.out.Read(p) }
func (c channel) Write(p []byte) (int, error) { return c.in.Write(p) }
func (c channel) Close() error                { return errors.Join(c.in.Close(), c.out.Close()) }

// endTime is how long ssh may take to end when its input has.
const endTime = 2 * time.Second

// finished returns how ssh has ended. It kills one that does not end, and one whose user gives up.
func finished(ctx context.Context, cmd *exec.Cmd) error {
	if ctx.Err() != nil {
		cmd.Process.Kill()
	}
	defer time.AfterFunc(endTime, func() { cmd.Process.Kill() }).Stop()
	return cmd.Wait()
}

// Dial makes a connection to the daemon. The first one starts ssh, which may ask the user for a password, so that only
// the end of ctx bounds it. A link that has broken is made again.
func (l *Link) Dial(ctx context.Context) (net.Conn, error) { return l.dial(ctx, api) }

// DialPort makes a connection to a port of TCP on the host's 127.0.0.1. If nothing listens there, the first read fails.
func (l *Link) DialPort(ctx context.Context, port uint16) (net.Conn, error) {
	return l.dial(ctx, ports+uint32(port))
}

func (l *Link) dial(ctx context.Context, port uint32) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mux == nil || l.mux.Err() != nil {
		l.end()
		if err := l.begin(ctx); err != nil {
			return nil, err
		}
	}
	return l.mux.Dial(ctx, port)
}

// Forward carries connections of ln, which it owns, to a port of TCP on the host's 127.0.0.1, until ctx ends.
func (l *Link) Forward(ctx context.Context, ln net.Listener, port uint16) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			if far, err := l.DialPort(ctx, port); err == nil {
				splice.Copy(ctx, conn, far)
			}
		})
	}
}

// begin starts ssh, and waits until banger answers behind it. mu is held.
func (l *Link) begin(ctx context.Context) error {
	cmd, err := l.Context.Command(context.WithoutCancel(ctx), false, "dial-stdio")
	if err != nil {
		return err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = w, l.Stderr, endTime // a program of ssh's may outlive it
	err = cmd.Start()
	w.Close()
	if err != nil {
		out.Close()
		return banger.Errorf(banger.CodeUnavailable, "cannot start ssh: %w", banger.Cause(err))
	}
	l.cmd = cmd
	ch := channel{out, in}
	if l.mux, err = mux.Connect(ctx, ch); err == nil {
		return nil
	}
	ch.Close()
	failed := finished(ctx, cmd)
	l.mux, l.cmd = nil, nil
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if banger.CodeOf(err) == banger.CodeVersion {
		return banger.Errorf(banger.CodeVersion, "banger on %s and this one have no protocol in common", l.Context.Address).
			WithHint("install the same version on both hosts")
	}
	return l.why(failed)
}

// why returns the error for an ssh that has ended too early. ssh, or the host, has said on stderr what went wrong.
func (l *Link) why(failed error) error {
	var code int
	if exit, ok := errors.AsType[*exec.ExitError](failed); ok {
		code = exit.ExitCode()
	}
	err := banger.Errorf(banger.CodeUnavailable, "the context %q does not answer at %s", l.Context.Name, l.Context.Address)
	if code == 127 { // of a shell that finds no program
		return err.WithHint("install banger there, or say where it is: banger context add --program PATH")
	}
	return err.WithHint("see what ssh says: ssh %s true", strings.TrimPrefix(l.Context.Address, "ssh://"))
}

// end ends ssh, if it runs. mu is held.
func (l *Link) end() {
	if l.mux == nil {
		return
	}
	l.mux.Close() // ssh ends with its input
	finished(context.Background(), l.cmd)
	l.mux, l.cmd = nil, nil
}

// Close ends the link and its connections.
func (l *Link) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

// Serve is the far end of a link, on stdin and stdout: dial makes connections to the daemon. Serve returns when the
// near end has gone.
func Serve(ctx context.Context, stdin io.Reader, stdout io.Writer,
	dial func(context.Context) (net.Conn, error)) error {
	ch := struct {
		io.Reader
		io.Writer
	}{stdin, stdout}
	err := mux.Serve(ctx, ch, func(port uint32, stream net.Conn) {
		defer stream.Close()
		var end net.Conn
		var err error
		switch {
		case port == api:
			end, err = dial(ctx)
		case port > ports && port < 2*ports:
			var d net.Dialer
			end, err = d.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port-ports))
		default:
			return
		}
		if err == nil { // else the near end sees that the connection breaks
			splice.Copy(ctx, stream, end)
		}
	})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
