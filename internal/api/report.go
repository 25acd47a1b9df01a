package api

import (
	"context"
	"errors"
	"net/http"

	"banger/internal/api/wire"
)

var reportRoutes = []route{
	{"GET", "/v1/doctor", doctor, "doctor", "What this host can do, as the daemon sees it, and what to mend", nil, nil,
		[]wire.Check{}},
	{"GET", "/v1/usage", diskUsage, "usage", "What is on the disk, by kind",
		[]parameter{{"each", "also each VM and each snapshot", false, false}}, nil, []wire.Usage{}},
	{"GET", "/v1/log", daemonLog, "daemonLog", "What the daemon has logged, one line after the other",
		[]parameter{paramTail, {"follow", "go on until the client closes the connection", false, false}}, nil,
		content{"text/plain; charset=utf-8"}},
}

func doctor(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteJSON(w, s.Reporter.Checks(req.Context()))
}

func diskUsage(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w, func() ([]wire.Usage, error) {
		return s.Reporter.Usage(req.URL.Query().Get("each") == "true")
	})
}

func daemonLog(s *Server, w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	tail, err := tailOf(q)
	if err != nil {
		return err
	}
	if err := s.Reporter.CheckLog(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.(http.Flusher).Flush() // a client that follows waits for lines that may come late
	err = s.Reporter.Log(req.Context(), tail, q.Get("follow") == "true", wire.FlushWriter{W: w})
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("log", "err", err) // the status has already been sent
	}
	return nil
}
