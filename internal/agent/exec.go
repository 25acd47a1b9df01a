package agent

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/frame"
)

// exec runs one command with the stream as its stdio. The output of the main command is recorded instead, and the host
// gives it to the client.
func (s *server) exec(conn net.Conn, frames *frame.Reader, e *banger.Exec) {
	c, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer c.leave()
	p, err := s.Start(e, command.Options{})
	if err != nil {
		sendError(conn, err)
		return
	}
	if e.Main {
		defer s.reportsMain()()
	}
	x := &execution{conn: conn, p: p}
	x.write(frame.Started, nil)
	gone := make(chan struct{})
	go func() { // ends when the stream does
		x.readClient(frames)
		release(conn)
		close(gone)
	}()
	ended := make(chan struct{})
	go func() { // ends with the command and its output
		defer close(ended)
		if e.Main {
			s.record(p)
		} else {
			x.forward()
		}
	}()
	var over <-chan struct{} // readClient may wait for a command that takes no stdin
	if st, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		over = st.Done()
	}
	lost := true
	select {
	case <-p.Done():
		lost = false
	case <-gone:
	case <-over:
	case <-c.cut:
		x.sever(suspended(e.Main))
	}
	if lost && !e.Main { // the main command outlives its client
		p.BeginHangUp()
		c.leave()
		p.FinishHangUp()
	}
	c.leave()
	<-ended
	if e.Main {
		s.awaitDelivery(gone, over)
	}
	data, _ := json.Marshal(p.Exit())
	x.write(frame.Exit, data)
	p.Close()
}

// awaitDelivery returns when the host has all output of the main command, which it gives to the client before that
// learns of the end, or when the client is gone.
func (s *server) awaitDelivery(gone, over <-chan struct{}) {
	select {
	case <-s.output.Delivered():
	case <-gone:
	case <-over:
	}
}

// reportsMain notes that a client gets a report of the main command's end. The caller calls reported once the client
// has it, or has gone.
func (s *server) reportsMain() (reported func()) {
	c := make(chan struct{})
	s.mu.Lock()
	s.mainReports[c] = true
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		delete(s.mainReports, c)
		s.mu.Unlock()
		close(c)
	}
}

// awaitMainReports returns when the host has the output of the main command, which has ended, and all clients that wait
// for its end have the report of that, or when they read too slowly.
func (s *server) awaitMainReports() {
	s.mu.Lock()
	reports := slices.Collect(maps.Keys(s.mainReports))
	s.mu.Unlock()
	late := time.After(2 * command.DrainTime)
	select {
	case <-s.output.Delivered():
	case <-late:
		return
	}
	for _, reported := range reports {
		select {
		case <-reported:
		case <-late:
			return
		}
	}
}

// release gives back what a stream has lent, once its reader has come to the end.
func release(conn net.Conn) {
	if l, ok := conn.(lender); ok {
		l.Release()
	}
}

// execution connects a process with a stream.
type execution struct {
	conn net.Conn
	p    *command.Process

	mu   sync.Mutex // serialises frames
	lost bool       // the client is gone
}

func (x *execution) write(t frame.Type, payload []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return frame.Write(x.conn, t, payload)
}

// sever tells the client why its stream ends, and ends it.
func (x *execution) sever(why error) {
	x.conn.SetWriteDeadline(time.Now().Add(tellTime)) // a write to a client that reads nothing keeps mu
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.lost {
		sendError(x.conn, why)
		x.lost = true
	}
	x.conn.Close()
}

// readClient takes stdin, resizes and signals until the client goes away.
func (x *execution) readClient(frames *frame.Reader) {
	frames, feed, flush := clientFrames(x.conn, frames, x.p)
	for {
		t, payload, err := frames.NextTo(frame.Stdin, feed)
		if err != nil {
			return
		}
		if t != frame.Stdin {
			flush()
		}
		switch t {
		case frame.StdinEOF:
			x.p.EndStdin()
		case frame.Size:
			var r frame.Resize
			if json.Unmarshal(payload, &r) == nil {
				x.p.Resize(r.Rows, r.Cols)
			}
		case frame.Signal:
			if len(payload) == 1 {
				x.p.Signal(syscall.Signal(payload[0]))
			}
		}
	}
}

// forward sends stdout and stderr until the command and both have ended.
func (x *execution) forward() { eachOutput(x.p, x.copyFrom) }

// eachOutput calls take with stdout and stderr, as readers, at the same time. It returns when the command and both
// calls have ended.
func eachOutput(p *command.Process, take func(io.Reader, frame.Type)) {
	drained := make(chan struct{})
	go func() { // ends with the pipes, which AwaitEnd ends at the latest
		defer close(drained)
		var wg sync.WaitGroup
		wg.Go(func() { take(p.Stdout(), frame.Stdout) })
		if stderr := p.Stderr(); stderr != nil {
			wg.Go(func() { take(stderr, frame.Stderr) })
		}
		wg.Wait()
	}()
	p.AwaitEnd(drained)
}

// send completes the frame in buf. Once the client is lost, output goes to the
// console.
func (x *execution) send(buf []byte, t frame.Type) {
	frame.PutHeader(buf, t, len(buf)-frame.Header)
	x.mu.Lock()
	if !x.lost {
		_, err := x.conn.Write(buf)
		x.lost = err != nil
	}
	lost := x.lost
	x.mu.Unlock()
	if lost {
		os.Stdout.Write(buf[frame.Header:])
	}
}
