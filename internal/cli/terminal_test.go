package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/testing/hosttest"
	"banger/internal/testing/registrytest"
)

// terminal is a terminal on which a test types, and what it has shown.
type terminal struct {
	t             *testing.T
	master, slave *os.File
	closed        chan struct{} // closed when nothing more is shown

	mu    sync.Mutex
	shown bytes.Buffer
	end   string        // says how the command has ended
	more  chan struct{} // holds a value if something was shown
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, slave, err := pty.Open()
	hosttest.Check(t, err)
	hosttest.Check(t, pty.Setsize(slave, &pty.Winsize{Rows: 24, Cols: 80}))
	term := &terminal{t: t, master: master, slave: slave, closed: make(chan struct{}), more: make(chan struct{}, 1)}
	go func() { // ends when all ends of the terminal are closed
		io.Copy(term, master)
		close(term.closed)
	}()
	t.Cleanup(func() { slave.Close(); master.Close() })
	return term
}

func (x *terminal) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.shown.Write(p)
	select {
	case x.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown.String()
}

// await waits until the terminal has shown text.
func (x *terminal) await(text string) {
	x.t.Helper()
	late := time.After(hosttest.Patience)
	for !strings.Contains(x.text(), text) {
		select {
		case <-x.more:
		case <-late:
			x.mu.Lock()
			defer x.mu.Unlock()
			x.t.Fatalf("the terminal does not show %q, but %q%s", text, x.shown.String(), x.end)
		}
	}
}

func (x *terminal) typed(text string) {
	x.t.Helper()
	_, err := x.master.WriteString(text)
	hosttest.Check(x.t, err)
}

// start runs a command line on the terminal. The returned function waits for its exit code.
func (h *cliHost) start(ctx context.Context, x *terminal, args ...string) (wait func() int) {
	h.T.Helper()
	a, _, _ := h.app()
	a.Stdin, a.Stdout, a.Stderr = x.slave, x.slave, x.slave
	code := make(chan int, 1)
	go func() {
		c := a.run(ctx, args)
		x.mu.Lock()
		x.end = fmt.Sprintf(", and the command has ended with %d", c)
		x.mu.Unlock()
		code <- c
	}()
	return func() int {
		h.T.Helper()
		select {
		case c := <-code:
			return c
		case <-time.After(hosttest.Patience):
			h.T.Fatalf("banger %q does not end; the terminal shows %q", args, x.text())
			return 0
		}
	}
}

// TestAShellOnATerminal also checks that a command on a terminal needs neither -i nor -t, and gets the terminal's size.
func TestAShellOnATerminal(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	x := newTerminal(t)
	wait := h.start(t.Context(), x, "run", "--rm", "-e", "PS1=prompt>", h.Image)
	x.await("prompt>")
	x.typed("stty size; echo $((6*7)); exit 5\n")
	x.await("24 80")
	x.await("42")
	if code := wait(); code != 5 {
		t.Errorf("the exit code is %d", code)
	}
}

func TestExecOnATerminal(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box")
	x := newTerminal(t)
	const script = "echo ready; read a; echo got $a; tty | grep -o pts"
	wait := h.start(t.Context(), x, "exec", "-it", "box", "sh", "-c", script)
	x.await("ready")
	x.typed("word\n")
	x.await("got word")
	x.await("pts")
	if code := wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
}

// TestSeveralStartsHaveALineEach checks that the progress of one VM does not overwrite that of another.
func TestSeveralStartsHaveALineEach(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	names := []string{"one", "two", "three"}
	for _, name := range names {
		h.must("create", "--name", name, h.Image)
	}
	x := newTerminal(t)
	if code := h.start(t.Context(), x, "start", "one", "two", "three")(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
	x.await("three\r\n")
	rows := screen(x.text())
	for i, name := range names {
		if want := name + "  boot    " + name + " is running"; !strings.HasPrefix(rows[i], want) {
			t.Errorf("row %d is %q, not %q…: %q", i, rows[i], want, x.text())
		}
	}
	if got := strings.Join(rows[3:], " "); got != "one two three " {
		t.Errorf("below there is %q", got)
	}
}

// screen returns what a terminal shows that understands line ends, "up" and "erase the line".
func screen(text string) (rows []string) {
	rows, at := []string{""}, 0
	for len(text) > 0 {
		switch {
		case strings.HasPrefix(text, "\x1b[K"):
			rows[at], text = "", text[3:]
		case strings.HasPrefix(text, "\x1b["):
			n := int(text[2] - '0')
			at, text = at-n, text[4:]
		case text[0] == '\n':
			if at++; at == len(rows) {
				rows = append(rows, "")
			}
			text = text[1:]
		case text[0] == '\r':
			text = text[1:]
		default:
			rows[at], text = rows[at]+text[:1], text[1:]
		}
	}
	return rows
}

func TestConfirmation(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]struct {
		code int
		left string
	}{"y\n": {0, ""}, "n\n": {1, "rest"}, "\n": {1, "rest"}} {
		h := newCLIHost(t)
		id := h.must("create", "--name", "rest", h.Image)
		x := newTerminal(t)
		wait := h.start(t.Context(), x, "prune")
		x.await("This removes every VM that does not run, with its disk. Go on? [y/N] ")
		x.typed(typed)
		if code := wait(); code != want.code {
			t.Errorf("after %q the exit code is %d", typed, code)
		}
		if left := h.must("ps", "-aq"); (left == id) != (want.left != "") {
			t.Errorf("after %q there is %q", typed, left)
		}
	}
}

// TestATarIsNotForATerminal checks each command that reads or writes a tar.
func TestATarIsNotForATerminal(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	for line, want := range map[string]struct {
		text string
		code int
	}{
		"image save x": {"banger: a tar is not for a terminal (use -o FILE)", 1},
		"image load":   {"banger: stdin is a terminal, not an archive (use -i FILE)", 1},
		"cp box:/x -":  {"banger: a tar is not for a terminal", 2},
		"cp - box:/x":  {"banger: stdin is a terminal, not a tar", 2},
	} {
		x := newTerminal(t)
		if code := h.start(t.Context(), x, strings.Fields(line)...)(); code != want.code {
			t.Errorf("%s ends with %d", line, code)
		}
		x.await(want.text)
	}
}

// TestStatsGoOnUntilTheUserEndsThem checks stats on a terminal.
func TestStatsGoOnUntilTheUserEndsThem(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	id := h.box("box")
	x := newTerminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	wait := h.start(ctx, x, "stats")
	x.await("\x1b[H\x1b[J")
	x.await(id)
	interrupt()
	if code := wait(); code != 0 {
		t.Errorf("the exit code is %d", code)
	}
}

// TestALoginAsksOnATerminal checks that login asks for what is missing, that the password is not shown, and that Ctrl-C
// ends the question.
func TestALoginAsksOnATerminal(t *testing.T) {
	registry := registrytest.Start()
	defer registry.Close()
	registry.RequireBasic("me", "hush")
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	h := newCLIHost(t)
	x := newTerminal(t)
	wait := h.start(t.Context(), x, "login", registry.Addr())
	x.await("Username: ")
	x.typed("me\r")
	x.await("Password: ")
	x.typed("hush\r")
	x.await("Password: \r\nWARNING! Your password is stored unencrypted in " + config)
	x.await("Login Succeeded\r\n")
	if code := wait(); code != 0 || strings.Contains(x.text(), "hush") {
		t.Errorf("it ends with %d, and the terminal shows %q", code, x.text())
	}
	ctx, cancel := context.WithCancel(t.Context())
	x = newTerminal(t)
	wait = h.start(ctx, x, "login", "-u", "me", registry.Addr())
	x.await("Password: ")
	cancel()
	x.await("banger: canceled\r\n")
	if code := wait(); code != 1 {
		t.Errorf("it ends with %d", code)
	}
	x.typed("\r") // for the reader that was left
}
