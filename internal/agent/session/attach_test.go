package session

import (
	"net"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/testing/processtest"
)

func TestALogIsSelectedByLinesAndTimes(t *testing.T) {
	m := manager(t, t.TempDir())
	_, err := m.Start(shell("log",
		"echo one; read x; echo two >&2; read x; printf 'three\nfour'; read x; printf ' more\nfive\n'"))
	must(t, err)
	c := attach(t, m, "log", banger.SessionView{Position: &start}).until(frame.Stdout, "one\n")
	c.send(frame.Stdin, "\n")
	c.until(frame.Stderr, "two\n").send(frame.Stdin, "\n")
	c.until(frame.Stdout, "four")
	between := time.Now()
	c.send(frame.Stdin, "\n")
	end := ended(t, m, "log")
	for name, tt := range map[string]struct {
		view        banger.LogView
		out, errors string
	}{
		"all":            {banger.LogView{Tail: -1}, "one\nthree\nfour more\nfive\n", "two\n"},
		"no line":        {banger.LogView{}, "", ""},
		"the last":       {banger.LogView{Tail: 1}, "five\n", ""},
		"across records": {banger.LogView{Tail: 2}, "four more\nfive\n", ""},
		"both streams":   {banger.LogView{Tail: 4}, "three\nfour more\nfive\n", "two\n"},
		"more than all":  {banger.LogView{Tail: 99}, "one\nthree\nfour more\nfive\n", "two\n"},
		"a position":     {banger.LogView{Tail: -1, Position: end.End - 5}, "five\n", ""},
		"until":          {banger.LogView{Tail: 1, Until: between}, "four", ""},
		"since":          {banger.LogView{Tail: -1, Since: between}, " more\nfive\n", ""},
		"never":          {banger.LogView{Tail: -1, Since: end.Ended.Add(time.Hour)}, "", ""},
		"followed":       {banger.LogView{Tail: 1, Follow: true}, "five\n", ""},
	} {
		got := attach(t, m, "log", banger.SessionView{Log: &tt.view}).until(0, "").got
		if got[frame.Stdout] != tt.out || got[frame.Stderr] != tt.errors {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestTheSizeFollowsTheLatestWriter(t *testing.T) {
	m := manager(t, t.TempDir())
	spec := shell("tty", "stty -echo; while read line; do stty size; done")
	spec.Command.TTY, spec.Command.Rows, spec.Command.Cols = true, 10, 20
	_, err := m.Start(spec)
	must(t, err)
	size := func(rows, cols uint16) banger.SessionView {
		return banger.SessionView{Position: &start, Rows: rows, Cols: cols}
	}
	small := attach(t, m, "tty", size(11, 21))
	small.send(frame.Stdin, "\r")
	small.until(frame.Stdout, "11 21")
	large := attach(t, m, "tty", size(50, 100))
	large.send(frame.Stdin, "\r")
	large.until(frame.Stdout, "50 100")
	small.send(frame.Size, `{"rows":12,"cols":22}`) // does not count before it types
	large.send(frame.Size, `{"rows":51,"cols":101}`)
	large.send(frame.Stdin, "\r")
	large.until(frame.Stdout, "51 101")
	small.send(frame.Stdin, "\r")
	small.until(frame.Stdout, "12 22")
	watcher := size(9, 9)
	watcher.ReadOnly = true
	attach(t, m, "tty", watcher).until(frame.Stdout, "12 22")
	small.send(frame.Stdin, "\r")
	large.until(frame.Stdout, "12 22\r\n12 22")
}

// TestASlowReaderDelaysNobody has a reader that reads nothing while the command writes more than its pipes hold.
func TestASlowReaderDelaysNobody(t *testing.T) {
	m := manager(t, t.TempDir())
	_, err := m.Start(shell("fast", "head -c 5000000 /dev/zero; echo end"))
	must(t, err)
	slow := attach(t, m, "fast", banger.SessionView{Position: &start})
	ended(t, m, "fast")
	if slow.until(0, ""); len(slow.got[frame.Stdout]) != 5_000_004 || slow.missed != 0 {
		t.Errorf("the slow reader got %d bytes and missed %d", len(slow.got[frame.Stdout]), slow.missed)
	}
}

// streamOver is a connection that tells of its end, as the agent's streams do.
type streamOver struct {
	net.Conn
	over chan struct{}
}

func (s streamOver) Done() <-chan struct{} { return s.over }

// TestAClientIsLetGoWhileNobodyReadsItsInput has a client that sends more than the command's pipe holds, and goes.
func TestAClientIsLetGoWhileNobodyReadsItsInput(t *testing.T) {
	m := manager(t, t.TempDir())
	_, err := m.Start(shell("deaf", "exec sleep 1000"))
	must(t, err)
	near, far := net.Pipe()
	conn := streamOver{far, make(chan struct{})}
	a, err := m.Attach(conn, "deaf", banger.SessionView{})
	must(t, err)
	served := make(chan struct{})
	go func() { // ends with the stream
		a.Serve(frame.NewReader(far))
		close(served)
	}()
	if kind, _, err := frame.NewReader(near).Next(); err != nil || kind != frame.Started {
		t.Fatalf("the first frame is %d, %v", kind, err)
	}
	near.SetWriteDeadline(time.Now().Add(time.Second))
	for err == nil {
		err = frame.Write(near, frame.Stdin, make([]byte, frame.MaxData))
	}
	close(conn.over)
	select {
	case <-served:
	case <-processtest.WithPatience(t).Done():
		t.Error("the client is served on")
	}
	must(t, m.Stop("deaf", 0))
	near.Close()
}
