package agent

import (
	"encoding/json"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"banger"
)

// drainTime is how long output is still taken after the command's end, when a
// grandchild holds the pipes open.
const drainTime = time.Second

// exec runs one command with the stream as its stdio.
func (s *server) exec(conn net.Conn, frames *banger.FrameReader, e *banger.Exec) {
	p, err := s.launch(e)
	if err != nil {
		sendError(conn, err)
		return
	}
	if e.Main {
		defer s.tellsMain()()
	}
	x := &execution{conn: conn, p: p}
	x.write(banger.FrameStarted, nil)
	gone := make(chan struct{})
	go func() { // ends when the stream does
		x.readClient(frames)
		release(conn)
		close(gone)
	}()
	drained := make(chan struct{})
	go func() { // ends with the pipes, which are closed below at the latest
		x.copyOutput()
		close(drained)
	}()
	var over <-chan struct{} // the reader may wait for a command that takes no stdin
	if c, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		over = c.Done()
	}
	lost := false
	select {
	case <-p.done:
	case <-gone:
		lost = true
	case <-over:
		lost = true
	}
	if lost && !e.Main { // the main one outlives its client; output goes to the console
		p.hangUp()
	}
	<-p.done
	select {
	case <-drained:
	case <-time.After(drainTime):
		x.stopOutput()
		<-drained
	}
	data, _ := json.Marshal(p.exit)
	x.write(banger.FrameExit, data)
	p.closeStdio()
}

// tellsMain says that a client is to be told of the main command's end, until what it returns is called.
func (s *server) tellsMain() (told func()) {
	c := make(chan struct{})
	s.mu.Lock()
	s.mainTold = c
	s.mu.Unlock()
	return func() { close(c) }
}

// awaitMainTold returns when the client of the main command, which has ended, knows its end, or takes it too slowly.
func (s *server) awaitMainTold() {
	s.mu.Lock()
	told := s.mainTold
	s.mu.Unlock()
	if told == nil {
		return
	}
	select {
	case <-told:
	case <-time.After(2 * drainTime):
	}
}

// release ends the loans of a reader that has come to its end.
func release(conn net.Conn) {
	if l, ok := conn.(lender); ok {
		l.Release()
	}
}

// execution connects a process with a stream.
type execution struct {
	conn net.Conn
	p    *process

	mu   sync.Mutex // serialises frames
	lost bool       // the client is gone
}

func (x *execution) write(t banger.FrameType, payload []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return banger.WriteFrame(x.conn, t, payload)
}

// readClient takes stdin, resizes and signals until the client goes away.
func (x *execution) readClient(frames *banger.FrameReader) {
	frames, feed, flush := clientFrames(x.conn, frames, x.p)
	for {
		t, payload, err := frames.NextTo(banger.FrameStdin, feed)
		if err != nil {
			return
		}
		if t != banger.FrameStdin {
			flush()
		}
		switch t {
		case banger.FrameStdinEOF:
			x.endStdin()
		case banger.FrameResize:
			var r banger.Resize
			if json.Unmarshal(payload, &r) == nil {
				x.p.resize(r.Rows, r.Cols)
			}
		case banger.FrameSignal:
			if len(payload) == 1 {
				x.p.signal(syscall.Signal(payload[0]))
			}
		}
	}
}

// feed writes to the command's stdin, if it has one.
func (p *process) feed(b []byte) {
	if p.stdin == nil {
		return
	}
	if _, err := p.stdin.Write(b); err != nil && p.tty == nil {
		p.stdin.Close() // the command reads no more; the rest is dropped
	}
}

// endStdin closes a pipe; a terminal is told by its end-of-file character.
func (x *execution) endStdin() {
	switch {
	case x.p.tty != nil:
		x.p.tty.Write([]byte{4})
	case x.p.stdin != nil:
		x.p.stdin.Close()
	}
}

// copyOutput sends stdout and stderr until both have ended.
func (x *execution) copyOutput() {
	var wg sync.WaitGroup
	wg.Go(func() { x.copyFrom(x.p.stdout, banger.FrameStdout) })
	if x.p.stderr != nil {
		wg.Go(func() { x.copyFrom(x.p.stderr, banger.FrameStderr) })
	}
	wg.Wait()
}

// send completes the frame in buf. Once the client is lost, output goes to the
// console.
func (x *execution) send(buf []byte, t banger.FrameType) {
	banger.PutFrameHeader(buf, t, len(buf)-banger.FrameHeader)
	x.mu.Lock()
	if !x.lost {
		_, err := x.conn.Write(buf)
		x.lost = err != nil
	}
	lost := x.lost
	x.mu.Unlock()
	if lost {
		os.Stdout.Write(buf[banger.FrameHeader:])
	}
}

func (x *execution) stopOutput() {
	now := time.Now()
	x.p.stdout.SetReadDeadline(now)
	if x.p.stderr != nil {
		x.p.stderr.SetReadDeadline(now)
	}
}
