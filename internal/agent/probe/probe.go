// Package probe sees whether a command in the guest does its work: a port answers, a file is there, or a command
// succeeds. It keeps trying as long as the command runs.
//
// The package must not know whose command it is, nor how commands are started.
package probe

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger"
)

// startPause is the pause between attempts while the command has not been ready yet.
const startPause = 250 * time.Millisecond

// The defaults of a probe.
const (
	interval = 10 * time.Second
	timeout  = 5 * time.Second
	retries  = 3
)

// maxReason is the maximum length of a reason in bytes.
const maxReason = 512

// Run runs a command, and returns how it ended and the beginning of its output. It kills the command when ctx ends.
type Run func(ctx context.Context, args []string) (banger.Exit, string, error)

// Watch is what is known of one command.
type Watch struct {
	probe banger.Probe
	run   Run
	tell  func() // called after each change of the state

	mu      sync.Mutex
	state   banger.Readiness
	changed chan struct{} // closed and replaced at each change
}

// New returns a watch of a command that does not run yet. It calls tell after each change of its state.
func New(p banger.Probe, run Run, tell func()) *Watch {
	p.Interval, p.Timeout = cmp.Or(p.Interval, interval), cmp.Or(p.Timeout, timeout)
	p.Retries = cmp.Or(p.Retries, retries)
	return &Watch{probe: p, run: run, tell: tell, changed: make(chan struct{})}
}

// State returns what is known now, and a channel that is closed when that has changed.
func (w *Watch) State() (banger.Readiness, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, w.changed
}

// set notes a state.
func (w *Watch) set(ready bool, reason string) {
	if w.note(ready, reason) {
		w.tell()
	}
}

// note is set without a call of tell. It reports whether the state has changed.
func (w *Watch) note(ready bool, reason string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Ready == ready && w.state.Reason == reason && !w.state.Since.IsZero() {
		return false
	}
	if w.state.Ready != ready || w.state.Since.IsZero() {
		w.state.Since = time.Now().UTC()
	}
	w.state.Ready, w.state.Reason = ready, reason
	close(w.changed)
	w.changed = make(chan struct{})
	return true
}

// Follow tries until ctx ends, which is when the command has ended: it is not ready then.
func (w *Watch) Follow(ctx context.Context) {
	defer w.set(false, "the command does not run")
	w.set(false, "")
	began := time.Now()
	for failures := 0; ; {
		err := w.try(ctx)
		if ctx.Err() != nil {
			return
		}
		was, _ := w.State()
		pause := startPause
		switch {
		case err == nil:
			failures, pause = 0, w.probe.Interval
			w.set(true, "")
		case banger.CodeOf(err) == banger.CodeConflict: // nothing can start now, which says nothing of the command
		case !was.Ready:
			w.set(false, limit(err.Error()))
		case time.Since(began) < w.probe.StartPeriod:
			pause = w.probe.Interval
		default:
			pause = w.probe.Interval
			if failures++; failures >= w.probe.Retries {
				w.set(false, limit(err.Error()))
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// Await returns when the command is ready. The error says why it is not, when ctx or the command ends before.
func (w *Watch) Await(ctx context.Context, over <-chan struct{}) error {
	for {
		state, changed := w.State()
		if state.Ready {
			return nil
		}
		why := ""
		if state.Reason != "" {
			why = ": " + state.Reason
		}
		select {
		case <-changed:
		case <-over:
			return banger.Errorf(banger.CodeConflict, "its command has ended")
		case <-ctx.Done():
			return banger.Errorf(banger.CodeTimeout, "it has not answered in time%s", why)
		}
	}
}

func limit(text string) string {
	text = strings.TrimSpace(text)
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
}

// try makes one attempt.
func (w *Watch) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.probe.Timeout)
	defer cancel()
	kind, rest, _ := strings.Cut(w.probe.Check, ":")
	switch {
	case len(w.probe.Args) > 0:
		return w.command(ctx, w.probe.Args)
	case kind == "cmd":
		return w.command(ctx, []string{"/bin/sh", "-c", rest})
	case kind == "file":
		_, err := os.Stat(rest)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no file %s", rest)
		}
		return err
	case kind == "http":
		port, at, _ := strings.Cut(rest, "/")
		return get(ctx, port, "/"+at)
	}
	conn, err := dial(ctx, rest)
	if err != nil {
		return err
	}
	return conn.Close()
}

// command succeeds if a command does.
func (w *Watch) command(ctx context.Context, args []string) error {
	exit, said, err := w.run(ctx, args)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the command %q has not ended within %s", args[len(args)-1], w.probe.Timeout)
	case err != nil:
		return err
	case exit != banger.Exit{}:
		return fmt.Errorf("the command %q ended with %d: %s", args[len(args)-1], exit.Status(), limit(said))
	}
	return nil
}

// dial connects with a TCP port of the guest: of its loopback or, for a program that listens there only, of another
// address of the guest.
func dial(ctx context.Context, port string) (net.Conn, error) {
	var d net.Dialer
	hosts := []string{"127.0.0.1", "::1"}
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
				hosts = append(hosts, n.IP.String())
			}
		}
	}
	for _, host := range hosts {
		if conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port)); err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("nothing answers on port %s", port)
}

// get makes a request of HTTP, and succeeds if the status is from 200 to 399 (RFC 9110 section 15).
func get(ctx context.Context, port, path string) error {
	conn, err := dial(ctx, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost:%s\r\nUser-Agent: banger\r\nConnection: close\r\n\r\n",
		path, port)
	if err != nil {
		return fmt.Errorf("port %s takes no request", port)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 1<<10)).ReadString('\n')
	version, rest, _ := strings.Cut(line, " ")
	if err != nil || !strings.HasPrefix(version, "HTTP/1.") || len(rest) < 3 {
		return fmt.Errorf("what answers on port %s does not speak HTTP", port)
	}
	if status, err := strconv.Atoi(rest[:3]); err != nil || status < 200 || status > 399 {
		return fmt.Errorf("port %s answers %s with %.60s", port, path, strings.TrimSpace(rest))
	}
	return nil
}
