package agent

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"banger"
	"banger/internal/agent/console"
	"banger/internal/frame"
	"banger/internal/guest"
)

// adoptTime bounds the wait for the image's init before sessions start again.
const adoptTime = 2 * time.Minute

// openSessions reads the sessions of earlier boots. Those that are to run start again when the image's init accepts
// commands.
func (s *server) openSessions() {
	disk := s.system.Disk()
	if disk == "" {
		return
	}
	again, err := s.sessions.Open(filepath.Join(disk, "banger", "sessions"), s.config.Confine.SessionDisk)
	if err != nil {
		console.Warn(fmt.Errorf("reading the sessions of earlier boots: %w", err))
	}
	if !again {
		return
	}
	go func() { // ends with the boot of the init
		ctx, cancel := context.WithTimeout(context.Background(), adoptTime)
		defer cancel()
		s.system.Ready(ctx)
		s.sessions.Adopt()
	}()
}

// sessionStreams serves the streams about sessions.
type sessionStreams struct{ *server }

// sessionRequest serves the requests about sessions that need nothing but an answer.
func (s sessionStreams) sessionRequest(req guest.Request) (any, error) {
	switch req.Op {
	case guest.OpSessions:
		return s.sessions.List(), nil
	case guest.OpSessionStart:
		if req.Session.Spec == nil {
			return nil, banger.Errorf(banger.CodeInvalid, "no session given")
		}
		return s.sessions.Start(*req.Session.Spec)
	case guest.OpSessionSignal:
		if err := s.sessions.Signal(req.Session.Name, syscall.Signal(req.Signal)); err != nil {
			return nil, err
		}
	case guest.OpSessionStop:
		if err := s.sessions.Stop(req.Session.Name, time.Duration(req.Grace)*time.Millisecond); err != nil {
			return nil, err
		}
	case guest.OpSessionRemove:
		return banger.Session{}, s.sessions.Remove(req.Session.Name, req.Session.Force)
	}
	return s.sessions.Get(req.Session.Name)
}

// session serves one stream about sessions.
func (s sessionStreams) session(conn net.Conn, frames *frame.Reader, req guest.Request) {
	if req.Session == nil {
		req.Session = &guest.SessionRequest{}
	}
	switch req.Op {
	case guest.OpSessionAttach:
		s.attachSession(conn, frames, req.Session)
	case guest.OpSessionSend:
		err := s.sessions.Send(conn, frames, req.Session.Name, req.Session.End)
		if err == nil {
			var now banger.Session
			if now, err = s.sessions.Get(req.Session.Name); err == nil {
				frame.WriteJSON(conn, frame.Response, now)
				return
			}
		}
		sendError(conn, err)
	case guest.OpSessionEvents:
		s.sessionEvents(conn, frames, req.Session)
	case guest.OpSessionWait:
		s.waitSession(conn, frames, req.Session.Name)
	case guest.OpSessionReady:
		ctx, cancel := untilGone(frames, time.Duration(req.Wait)*time.Millisecond)
		defer cancel()
		ready, err := s.sessions.Ready(ctx, req.Session.Name)
		if err != nil {
			sendError(conn, err)
			return
		}
		frame.WriteJSON(conn, frame.Response, ready)
	default:
		answer, err := s.sessionRequest(req)
		if err != nil {
			sendError(conn, err)
			return
		}
		frame.WriteJSON(conn, frame.Response, answer)
	}
}

// attachSession connects a client with a session until one of them ends. A suspend ends the stream alone.
func (s sessionStreams) attachSession(conn net.Conn, frames *frame.Reader, req *guest.SessionRequest) {
	c, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer c.leave()
	a, err := s.sessions.Attach(conn, req.Name, req.View)
	if err != nil {
		sendError(conn, err)
		return
	}
	c.whenCut(func() {
		conn.SetWriteDeadline(time.Now().Add(tellTime))
		a.Sever(func() {
			sendError(conn, banger.Errorf(banger.CodeConflict,
				"the VM was suspended, and the session %s with it", req.Name).
				WithHint("attach to it again: banger session attach VM %s", req.Name))
		})
	})
	a.Serve(frames)
}

// sessionEvents tells a client what happens to sessions until it goes away. A suspend ends the stream alone, as the end
// of the guest does.
func (s sessionStreams) sessionEvents(conn net.Conn, frames *frame.Reader, req *guest.SessionRequest) {
	c, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer c.leave()
	ctx, cancel := untilGone(frames, 0)
	defer cancel()
	if req.Once {
		cancel() // the stream then ends when it would have to wait
	}
	c.whenCut(func() {
		conn.SetWriteDeadline(time.Now().Add(tellTime))
		cancel()
	})
	err = s.sessions.Events(ctx, req.Since, func(change banger.SessionChange) error {
		return frame.WriteJSON(conn, frame.Response, change)
	})
	switch {
	case c.isCut():
		sendError(conn, banger.Errorf(banger.CodeConflict, "the VM was suspended, and with it this stream").
			WithHint("go on behind the last cursor: banger session events --since CURSOR VM"))
	case err == nil && req.Once:
		frame.Write(conn, frame.Exit, nil)
	}
}

// waitSession answers when a session has ended for good, unless the client goes away before.
func (s sessionStreams) waitSession(conn net.Conn, frames *frame.Reader, name string) {
	over, describe, err := s.sessions.Wait(name)
	if err != nil {
		sendError(conn, err)
		return
	}
	ctx, cancel := untilGone(frames, 0)
	defer cancel()
	select {
	case <-over:
		frame.WriteJSON(conn, frame.Response, describe())
	case <-ctx.Done():
	}
}
