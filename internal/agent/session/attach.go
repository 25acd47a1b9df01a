package session

import (
	"bytes"
	"encoding/json"
	"net"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/agent/stream"
	"banger/internal/agent/transcript"
	"banger/internal/frame"
)

// Attachment is one client at a session. Several may write and read at once.
type Attachment struct {
	conn net.Conn
	s    *session
	view banger.SessionView

	mu    sync.Mutex // serialises frames
	frame []byte
}

// Attach connects the client at conn with a session. The caller then calls Serve.
func (m *Manager) Attach(conn net.Conn, name string, v banger.SessionView) (*Attachment, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	s, err := m.find(name)
	if err != nil {
		return nil, err
	}
	return &Attachment{conn: conn, s: s, view: v}, nil
}

// Serve gives the client frame.Started, the screen if it wants that, each record as frame.Stamp and data, and
// frame.Exit at the end, whose payload is the session. It takes the client's frames until the client is gone.
func (a *Attachment) Serve(frames *frame.Reader) {
	from := a.s.log.End()
	switch {
	case a.view.Log != nil:
		from = firstOf(a.s.log, *a.view.Log)
	case a.view.Position != nil:
		from = *a.view.Position
	}
	if a.write(frame.Started, nil) != nil {
		return
	}
	var to stream.Target = onlooker{}
	if !a.view.ReadOnly && a.view.Log == nil {
		c := &client{s: a.s, rows: a.view.Rows, cols: a.view.Cols}
		c.typed()
		defer c.leave()
		to = c
	}
	if a.view.Screen && a.s.screen != nil {
		var drawing []byte
		drawing, from = a.s.screen.Draw(a.view.Rows, a.view.Cols)
		if len(drawing) > frame.Max || a.write(frame.Screen, drawing) != nil {
			return
		}
	}
	gone, over := stream.Begin(a.conn, frames, to)
	if !a.copyOutput(from, gone, over) {
		return
	}
	if a.view.Log == nil {
		select {
		case <-a.s.over:
		case <-gone:
			return
		case <-over:
			return
		}
	}
	data, _ := json.Marshal(a.s.describe())
	a.write(frame.Exit, data)
}

// onlooker drops what a client sends that may only look.
type onlooker struct{}

func (onlooker) FeedVector([][]byte)         {}
func (onlooker) EndStdin()                   {}
func (onlooker) Resize(uint16, uint16) error { return nil }
func (onlooker) Signal(syscall.Signal) error { return nil }

// copyOutput sends the output from a position on. It returns false if the client is gone, or its stream over.
func (a *Attachment) copyOutput(from uint64, gone, over <-chan struct{}) bool {
	want := banger.LogView{Follow: true}
	if a.view.Log != nil {
		want = *a.view.Log
	}
	var late <-chan time.Time
	if !want.Until.IsZero() {
		late = time.After(time.Until(want.Until))
	}
	r := a.s.log.Read(from)
	defer r.Close()
	for {
		record, more := r.Next()
		switch {
		case record.Data != nil:
			if within(want, record.Time) && a.send(record) != nil {
				return false
			}
			continue
		case more == nil || !want.Follow:
			return true
		}
		select {
		case <-more:
		case <-late:
			return true
		case <-gone:
			return false
		case <-over:
			return false
		}
	}
}

// within reports whether t is a time that v selects.
func within(v banger.LogView, t time.Time) bool {
	return !t.Before(v.Since) && (v.Until.IsZero() || !t.After(v.Until))
}

// firstOf returns the position of the first byte that a view of a log selects.
func firstOf(log *transcript.Transcript, v banger.LogView) uint64 {
	if v.Tail < 0 {
		return v.Position
	}
	r := log.Read(v.Position)
	defer r.Close()
	var lines []uint64 // where the last lines begin
	for begins := true; ; {
		record, _ := r.Next()
		if record.Data == nil {
			break
		}
		for at := 0; within(v, record.Time) && at < len(record.Data); {
			if begins {
				lines = append(lines, record.Position+uint64(at))
			}
			end := bytes.IndexByte(record.Data[at:], '\n')
			if begins = end >= 0; !begins {
				break
			}
			at += end + 1
		}
		lines = lines[max(0, len(lines)-v.Tail):]
	}
	if len(lines) == 0 {
		return log.End()
	}
	return lines[0]
}

// send sends a record in one write.
func (a *Attachment) send(r transcript.Record) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frame = frame.AppendStamp(a.frame[:0], r.Position, r.Time)
	head := len(a.frame)
	a.frame = append(a.frame, make([]byte, frame.Header)...)
	frame.PutHeader(a.frame[head:], r.Stream, len(r.Data))
	a.frame = append(a.frame, r.Data...)
	_, err := a.conn.Write(a.frame)
	return err
}

func (a *Attachment) write(t frame.Type, payload []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return frame.Write(a.conn, t, payload)
}

// Sever calls tell, which tells the client why its stream ends, between two frames, and ends the stream. The caller has
// set a deadline for writes to the client.
func (a *Attachment) Sever(tell func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tell()
	a.conn.Close()
}

// client is the writing end of a client. The terminal has the size of the one that has typed last.
type client struct {
	s          *session
	rows, cols uint16 // of its terminal; the session's mu guards them
}

// leave forgets the client, so that the terminal keeps its size.
func (c *client) leave() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.typist == c {
		c.s.typist = &client{s: c.s, rows: c.rows, cols: c.cols}
	}
}

// typed gives the terminal the client's size, if another one's counted so far.
func (c *client) typed() {
	c.s.mu.Lock()
	same := c.s.typist == c || c.rows == 0
	if !same {
		c.s.typist = c
	}
	rows, cols := c.rows, c.cols
	c.s.mu.Unlock()
	if !same {
		c.s.resize(rows, cols)
	}
}

// FeedVector gives the command stdin.
func (c *client) FeedVector(parts [][]byte) {
	c.typed()
	if p := c.s.process(); p != nil {
		p.FeedVector(parts)
	}
}

// EndStdin ends the command's stdin.
func (c *client) EndStdin() {
	if p := c.s.process(); p != nil {
		p.EndStdin()
	}
}

// Resize is called when the client's terminal has another size.
func (c *client) Resize(rows, cols uint16) error {
	c.s.mu.Lock()
	c.rows, c.cols = rows, cols
	counts := c.s.typist == c
	c.s.mu.Unlock()
	if !counts || rows == 0 || cols == 0 {
		return nil
	}
	return c.s.resize(rows, cols)
}

// Signal signals the command.
func (c *client) Signal(sig syscall.Signal) error {
	if p := c.s.process(); p != nil {
		return p.Signal(sig)
	}
	return nil
}

// resize gives the command's terminal, and the screen, a size.
func (s *session) resize(rows, cols uint16) error {
	if s.screen != nil {
		s.screen.Resize(rows, cols)
	}
	if p := s.process(); p != nil {
		return p.Resize(rows, cols)
	}
	return nil
}

// Send gives a session's command stdin: all that the client at conn sends until frame.StdinEOF. With end, its stdin
// then ends. It returns when the command's pipe or terminal has taken everything.
func (m *Manager) Send(conn net.Conn, frames *frame.Reader, name string, end bool) error {
	s, err := m.find(name)
	if err != nil {
		return err
	}
	p := s.process()
	if p == nil {
		return s.notRunning()
	}
	defer stream.Release(conn)
	for {
		t, payload, err := frames.Next()
		switch {
		case err != nil:
			return banger.Errorf(banger.CodeCanceled, "the client went away")
		case t == frame.StdinEOF:
			if end {
				p.EndStdin()
			}
			return nil
		case t == frame.Stdin:
			p.FeedVector([][]byte{payload})
		}
	}
}
