package agent

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/agent/stream"
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
	gone, over := stream.Begin(conn, frames, p)
	ended := make(chan struct{})
	go func() { // ends with the command and its output
		defer close(ended)
		if e.Main {
			s.record(p)
		} else {
			x.forward()
		}
	}()
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

// attach connects the client at conn with the main command, which runs already and outlives it. size is that of the
// client's terminal.
func (s *server) attach(conn net.Conn, frames *frame.Reader, size frame.Resize) {
	c, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer c.leave()
	p := s.mainProcess()
	if p == nil {
		sendError(conn, banger.Errorf(banger.CodeConflict, "no main command runs"))
		return
	}
	defer s.reportsMain()()
	x := &execution{conn: conn, p: p}
	x.write(frame.Started, nil)
	if size.Rows > 0 && size.Cols > 1 { // a change makes a program draw its screen again
		p.Resize(size.Rows, size.Cols-1)
		p.Resize(size.Rows, size.Cols)
	}
	gone, over := stream.Begin(conn, frames, p)
	select {
	case <-p.Done():
		c.leave()
		s.awaitDelivery(gone, over)
		data, _ := json.Marshal(p.Exit())
		x.write(frame.Exit, data)
	case <-gone:
	case <-over:
	case <-c.cut:
		x.sever(suspended(true))
	}
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

// forward sends stdout and stderr until the command and both have ended.
func (x *execution) forward() {
	stream.Each(x.p, func(out io.Reader, t frame.Type) {
		stream.Pieces(out, frame.Header, func(buf []byte) { x.send(buf, t) })
	})
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
