package cli

import (
	"testing"
)

const detachKeys = "\x10\x11"

// TestAShellIsLeftAndFoundAgain leaves the main command by docker's keys and attaches to it, two terminals at once.
func TestAShellIsLeftAndFoundAgain(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	x := newTerminal(t)
	wait := h.start(t.Context(), x, "run", "--name", "box", "-e", "PS1=prompt>", h.Image)
	x.await("prompt>")
	x.typed("word=kept\n" + detachKeys)
	if code := wait(); code != 0 {
		t.Errorf("leaving it ends with %d", code)
	}
	x.await("banger: detached; box goes on\r\n")
	one, two := newTerminal(t), newTerminal(t)
	waitOne := h.start(t.Context(), one, "attach", "box")
	one.typed("echo $word\n")
	one.await("kept\r\n")
	waitTwo := h.start(t.Context(), two, "attach", "--detach-keys", "ctrl-a", "box")
	two.typed("echo for $((1+1))\n")
	two.await("for 2\r\n")
	one.await("for 2\r\n")
	two.typed("\x01")
	if code := waitTwo(); code != 0 {
		t.Errorf("leaving it ends with %d", code)
	}
	one.typed("exit 6\n")
	if code := waitOne(); code != 6 {
		t.Errorf("the exit code is %d", code)
	}
}

// TestASessionOnATerminal starts a shell as a session, and sees its screen from two terminals one after the other.
func TestASessionOnATerminal(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box")
	h.must("session", "start", "-t", "--name", "shell", "-e", "PS1=prompt>", "box", "--", "sh")
	x := newTerminal(t)
	wait := h.start(t.Context(), x, "session", "attach", "box", "shell")
	x.await("prompt>")
	x.typed("stty size; echo a is $((6*7))\n")
	x.await("24 80")
	x.await("a is 42\r\n")
	x.typed(detachKeys)
	if code := wait(); code != 0 {
		t.Errorf("leaving it ends with %d", code)
	}
	watcher := newTerminal(t)
	watch := h.start(t.Context(), watcher, "session", "attach", "--read-only", "box", "shell")
	watcher.await("a is 42") // the screen, drawn again
	again := newTerminal(t)
	wait = h.start(t.Context(), again, "session", "attach", "box", "shell")
	again.await("a is 42")
	again.typed("exit 3\n")
	for _, wait := range []func() int{wait, watch} {
		if code := wait(); code != 3 {
			t.Errorf("the exit code is %d", code)
		}
	}
	if got := h.must("session", "wait", "box", "shell"); got != "3" {
		t.Errorf("wait prints %q", got)
	}
	h.check(
		line{args: "session events --no-stream box", stdout: "shell ended (3)\n"},
		line{args: "session events --no-stream --format {{.name}} box", stdout: "shell\n"},
		line{args: "session events --since x box", code: 1, stderr: "banger: since is \"x\", which is not a cursor …"})
}
