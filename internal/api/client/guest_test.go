package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/testing/hosttest"
)

// TestStreamsOfAGuest runs a command, copies a file and reads the console.
func TestStreamsOfAGuest(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	spec := w.spec("box")
	spec.Cmd = []string{"sh", "-c", "echo one; echo two; sleep 1000"}
	ok[banger.VM](t)(w.Create(ctx, spec, nil, true, banger.Discard))
	conn := ok[net.Conn](t)(w.Exec(ctx, "box", banger.Exec{Args: []string{"cat"}, Stdin: true}))
	defer conn.Close()
	hosttest.Check(t, frame.Write(conn, frame.Stdin, []byte("echo")))
	hosttest.Check(t, frame.Write(conn, frame.StdinEOF, nil))
	if got := frames(t, conn); got != `echo|{"code":0}` {
		t.Errorf("the command says %q", got)
	}
	info := ok[banger.FileInfo](t)(w.StatFile(ctx, "box", banger.FileRequest{Path: []byte("/etc/passwd")}))
	if info.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Errorf("it is %+v", info)
	}
	files := ok[net.Conn](t)(w.Files(ctx, "box",
		banger.FileRequest{Op: banger.FileArchive, Path: []byte("/etc/hostname"), Name: []byte("name"), Follow: true}))
	defer files.Close()
	if got := frames(t, files); !strings.Contains(got, "name\x00") {
		t.Errorf("the archive is %.40q", got)
	}
	output := func(ref string, tail int) (string, bool) {
		r, apart, err := w.Output(ctx, ref, banger.LogView{Tail: tail})
		hosttest.Check(t, err)
		return read(t, r), apart
	}
	w.h.Await("the output has both lines", func() bool {
		got, apart := output("box", -1)
		return apart && hosttest.Output(t, strings.NewReader(got)) == "one\ntwo\n"
	})
	if got, _ := output("box", 1); hosttest.Output(t, strings.NewReader(got)) != "two\n" {
		t.Errorf("the last line is %q", got)
	}
	if got := read(t, ok[io.ReadCloser](t)(w.Logs(ctx, "box", -1, false))); strings.Contains(got, "two") {
		t.Errorf("a client that does not ask for the output gets %q", got)
	}
	machine := w.spec("machine")
	machine.Cmd = nil
	ok[banger.VM](t)(w.Create(ctx, machine, nil, true, banger.Discard))
	if got, apart := output("machine", -1); apart {
		t.Errorf("a VM without a main command has the output %q", got)
	}
	if st := ok[banger.Stats](t)(w.Stats(ctx, "box")); st.Name != "box" || st.Memory == 0 {
		t.Errorf("the stats are %+v", st)
	}
	follow, interrupt := context.WithCancel(ctx)
	all := ok[io.ReadCloser](t)(w.Logs(follow, "box", -1, true))
	interrupt()
	if _, err := io.ReadAll(all); !errors.Is(err, context.Canceled) {
		t.Errorf("following ends with %v", err)
	}
}

func read(t *testing.T, r io.ReadCloser) string {
	t.Helper()
	defer r.Close()
	text, err := io.ReadAll(r)
	hosttest.Check(t, err)
	return string(text)
}
