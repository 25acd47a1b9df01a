package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/frame"
)

// Sessions manages the commands in VMs that outlive their clients.
type Sessions interface {
	Start(ctx context.Context, ref string, spec banger.SessionSpec) (banger.Session, error)
	List(ctx context.Context, ref string) ([]banger.Session, error)
	Get(ctx context.Context, ref, name string) (banger.Session, error)
	Signal(ctx context.Context, ref, name string, signal int) (banger.Session, error)
	Stop(ctx context.Context, ref, name string, grace time.Duration) (banger.Session, error)
	Remove(ctx context.Context, ref, name string, force bool) error
	Wait(ctx context.Context, ref, name string) (banger.Session, error)
	Ready(ctx context.Context, ref, name string, within time.Duration) (banger.Session, error)
}

// SessionStreams carries the input and output of sessions.
type SessionStreams interface {
	Attach(ctx context.Context, ref, name string, v banger.SessionView) (net.Conn, error)
	AttachMain(ctx context.Context, ref string, size frame.Resize) (net.Conn, error)
	Send(ctx context.Context, ref, name string, end bool, r io.Reader) (banger.Session, error)
	Output(ctx context.Context, ref, name string, v banger.LogView, w io.Writer) error
	Events(ctx context.Context, ref, since string, once bool, tell func(banger.SessionChange) error) error
}

var paramPosition = parameter{"position", "the position of the first byte of output; each byte has one, from 0 on",
	uint64(0), false}

var sessionRoutes = []route{
	{"GET", "/v1/vms/{vm}/sessions", listSessions, "listSessions", "The sessions of a VM, newest first", nil, nil,
		[]banger.Session{}},
	{"GET", "/v1/vms/{vm}/session-events", sessionEvents, "sessionEvents",
		"What happens to the sessions of a VM, one change per line, as with /v1/events. Output is no change. The last line " +
			"may have an error, such as that the VM was suspended", changeParams, nil, lines{banger.SessionChange{}}},
	{"POST", "/v1/vms/{vm}/sessions", startSession, "startSession",
		"Start a command that outlives its clients. What its command leaves empty comes from the image and the VM", nil,
		banger.SessionSpec{}, banger.Session{}},
	{"GET", "/v1/vms/{vm}/sessions/{session}", ofSession(getSession), "getSession", "One session by its name", nil, nil,
		banger.Session{}},
	{"DELETE", "/v1/vms/{vm}/sessions/{session}", ofSession(removeSession), "removeSession",
		"Remove a session that has ended, with its output", []parameter{{"force", "end it first", false, false}}, nil, nil},
	{"POST", "/v1/vms/{vm}/sessions/{session}/signal", ofSession(signalSession), "signalSession",
		"Signal a session's command and its process group", []parameter{{"signal", "1 to 64; default 15", 0, false}}, nil,
		banger.Session{}},
	{"POST", "/v1/vms/{vm}/sessions/{session}/stop", ofSession(stopSession), "stopSession",
		"End a session for good, and answer when it has ended",
		[]parameter{{"grace", "seconds until its command is killed; default 10", 0, false}}, nil, banger.Session{}},
	{"GET", "/v1/vms/{vm}/sessions/{session}/wait", ofSession(waitSession), "waitSession",
		"Answer when a session has ended", nil, nil, banger.Session{}},
	{"GET", "/v1/vms/{vm}/sessions/{session}/ready", ofSession(readySession), "readySession",
		"Answer when the ready probe of a session has succeeded", []parameter{paramWithin}, nil, banger.Session{}},
	{"POST", sendPath, ofSession(sendSession), "sendSession", "Give a session's command the body as stdin",
		[]parameter{{"eof", "its stdin then ends", false, false}}, content{"application/octet-stream"}, banger.Session{}},
	{"POST", "/v1/vms/{vm}/sessions/{session}/attach", ofSession(attachSession), "attachSession",
		"Attach to a session. Send Upgrade: banger-exec; after 101 frames follow as with exec, with frame.Stamp (position " +
			"and time) before each frame of output. With screen, the first frame is frame.Screen, which shows the present " +
			"screen. The last one is frame.Exit with the Session, or frame.Error. Closing the connection leaves the session " +
			"running",
		[]parameter{
			paramPosition,
			{"screen", "first draw the screen of a session with a terminal", false, false},
			{"read_only", "what the client sends is dropped", false, false},
			{"rows", "the height of the client's terminal", 0, false},
			{"cols", "its width", 0, false},
		}, nil, upgrade{wire.UpgradeExec}},
	{"GET", "/v1/vms/{vm}/sessions/{session}/output", ofSession(sessionOutput), "sessionOutput",
		"What a session's command wrote: frames of frame.Stamp, each with the frame of frame.Stdout or frame.Stderr that " +
			"it is about. A stamp with a higher position than expected means that bytes between are gone",
		[]parameter{paramTail, paramFollow, paramPosition,
			{"since", "only what was written at this time or later; tail counts lines of that", time.Time{}, false},
			{"until", "only what was written up to this time, which ends follow", time.Time{}, false}},
		nil, content{wire.MediaFrames}},
}

func listSessions(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w,
		func() ([]banger.Session, error) { return s.Sessions.List(req.Context(), req.PathValue("vm")) })
}

func startSession(s *Server, w http.ResponseWriter, req *http.Request) error {
	var spec banger.SessionSpec
	if err := wire.Decode(req, &spec); err != nil {
		return err
	}
	if err := spec.Check(); err != nil {
		return err
	}
	return answerSession(w)(s.Sessions.Start(req.Context(), req.PathValue("vm"), spec))
}

// answerSession returns a function that answers with a session, unless there is an error.
func answerSession(w http.ResponseWriter) func(banger.Session, error) error {
	return func(session banger.Session, err error) error {
		if err != nil {
			return err
		}
		return wire.WriteJSON(w, session)
	}
}

// ofSession returns the handler of a route that is about one session, whose VM and name handle gets.
func ofSession(handle func(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error) func(*Server,
	http.ResponseWriter, *http.Request) error {
	return func(s *Server, w http.ResponseWriter, req *http.Request) error {
		name := req.PathValue("session")
		if err := banger.CheckSession(name); err != nil {
			return err
		}
		return handle(s, w, req, req.PathValue("vm"), name)
	}
}

func getSession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	return answerSession(w)(s.Sessions.Get(req.Context(), vm, name))
}

func removeSession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	if err := s.Sessions.Remove(req.Context(), vm, name, req.URL.Query().Get("force") == "true"); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func signalSession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	signal, err := numberOf(req.URL.Query(), "signal", 15, 1, 64)
	if err != nil {
		return err
	}
	return answerSession(w)(s.Sessions.Signal(req.Context(), vm, name, signal))
}

// numberOf returns a number of a query, or other if it is absent.
func numberOf(q url.Values, key string, other, low, high int) (int, error) {
	if q.Get(key) == "" {
		return other, nil
	}
	n, err := strconv.Atoi(q.Get(key))
	if err != nil || n < low || n > high {
		return 0, banger.Errorf(banger.CodeInvalid, "%s is %.40q, but must be %d to %d", key, q.Get(key), low, high)
	}
	return n, nil
}

func stopSession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	grace, err := graceOf(req)
	if err != nil {
		return err
	}
	return answerSession(w)(s.Sessions.Stop(req.Context(), vm, name, cmp.Or(grace, 10*time.Second)))
}

func waitSession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	return answerSession(w)(s.Sessions.Wait(req.Context(), vm, name))
}

func readySession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	within, err := withinOf(req)
	if err != nil {
		return err
	}
	return answerSession(w)(s.Sessions.Ready(req.Context(), vm, name, within))
}

func sendSession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	return answerSession(w)(s.SessionStreams.Send(req.Context(), vm, name, req.URL.Query().Get("eof") == "true", req.Body))
}

// sessionViewOf returns the view that a query describes.
func sessionViewOf(q url.Values) (v banger.SessionView, err error) {
	if q.Has("position") {
		at, err := positionOf(q)
		if err != nil {
			return v, err
		}
		v.Position = &at
	}
	v.Screen, v.ReadOnly = q.Get("screen") == "true", q.Get("read_only") == "true"
	size, err := sizeOf(q)
	v.Rows, v.Cols = size.Rows, size.Cols
	if err != nil {
		return v, err
	}
	return v, v.Check()
}

func attachSession(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	view, err := sessionViewOf(req.URL.Query())
	if err != nil {
		return err
	}
	if err := wantsUpgrade(req, "an attach", wire.UpgradeExec); err != nil {
		return err
	}
	stream, err := s.SessionStreams.Attach(req.Context(), vm, name, view)
	if err != nil {
		return err
	}
	return s.handOver(w, req, wire.UpgradeExec, stream)
}

func sessionOutput(s *Server, w http.ResponseWriter, req *http.Request, vm, name string) error {
	view, err := viewOf(req.URL.Query(), true)
	if err != nil {
		return err
	}
	if _, err := s.Sessions.Get(req.Context(), vm, name); err != nil {
		return err
	}
	w.Header().Set("Content-Type", wire.MediaFrames)
	err = s.SessionStreams.Output(req.Context(), vm, name, view, wire.FlushWriter{W: w})
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("session output", "err", err) // the status has already been sent
	}
	return nil
}
