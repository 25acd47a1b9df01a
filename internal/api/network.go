package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
)

func listPorts(s *Server, w http.ResponseWriter, req *http.Request) error {
	probe := req.URL.Query().Get("probe") == "true"
	return wire.WriteList(w,
		func() ([]banger.Listener, error) {
			return s.Connections.Ports(req.Context(), req.PathValue("vm"), probe)
		})
}

func addForward(s *Server, w http.ResponseWriter, req *http.Request) error {
	f, err := decodeForward(req)
	if err == nil {
		f, err = s.Connections.AddForward(req.Context(), req.PathValue("vm"), f)
	}
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, f)
}

func removeForward(s *Server, w http.ResponseWriter, req *http.Request) error {
	f, err := decodeForward(req)
	if err == nil {
		err = s.Connections.RemoveForward(req.Context(), req.PathValue("vm"), f)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func decodeForward(req *http.Request) (f banger.Forward, err error) {
	if err := wire.Decode(req, &f); err != nil {
		return f, err
	}
	return f, f.Check()
}

func setPolicy(s *Server, w http.ResponseWriter, req *http.Request) error {
	var p banger.Policy
	if err := wire.Decode(req, &p); err != nil {
		return err
	}
	vm, err := s.Connections.SetPolicy(req.Context(), req.PathValue("vm"), p)
	return answerVM(w, vm, err)
}

// defaultOnce is for how many seconds a rule is allowed once if the request does not say it.
const defaultOnce = 300

func allowOnce(s *Server, w http.ResponseWriter, req *http.Request) error {
	var once wire.OnceRequest
	if err := wire.Decode(req, &once); err != nil {
		return err
	}
	seconds := defaultOnce
	if once.Seconds != nil {
		seconds = *once.Seconds
	}
	if err := s.Decisions.AllowOnce(req.Context(), req.PathValue("vm"), once.Rule, seconds); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func denials(s *Server, w http.ResponseWriter, req *http.Request) error {
	return s.decided(w, req, false)
}

func decisions(s *Server, w http.ResponseWriter, req *http.Request) error {
	return s.decided(w, req, true)
}

// decided answers with what a policy has refused and, with all, also with what it has allowed.
func (s *Server) decided(w http.ResponseWriter, req *http.Request, all bool) error {
	q := req.URL.Query()
	tail, err := tailOf(q)
	if err != nil {
		return err
	}
	if _, err := s.Inventory.Get(req.PathValue("vm")); err != nil {
		return err
	}
	w.Header().Set("Content-Type", ndjson)
	w.(http.Flusher).Flush() // a client that follows waits for data that may come late
	out := wire.FlushWriter{W: w}
	err = s.Decisions.Write(req.Context(), req.PathValue("vm"), all, tail, q.Get("follow") == "true", out)
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("what a policy has decided was not shown", "err", err) // the status has already been sent
	}
	return nil
}

// tailOf reads ?tail=N. It returns -1 if N is absent or "all".
func tailOf(q url.Values) (int, error) {
	text := q.Get("tail")
	if text == "" || text == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, banger.Errorf(banger.CodeInvalid, "tail is %q, but must be a number of lines", text)
	}
	return n, nil
}

// connectRequest is the body of PUT /v1/vms/{vm}/network.
type connectRequest struct {
	Network string `json:"network"`
}

func listNetworks(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w, func() ([]banger.Network, error) { return s.Networks.Networks(req.Context()) })
}

func createNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	var n banger.Network
	if err := wire.Decode(req, &n); err != nil {
		return err
	}
	n, err := s.Networks.CreateNetwork(req.Context(), n)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, n)
}

func getNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	n, err := s.Networks.Network(req.Context(), req.PathValue("network"))
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, n)
}

func removeNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := s.Networks.RemoveNetwork(req.Context(), req.PathValue("network")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func connectNetwork(s *Server, w http.ResponseWriter, req *http.Request) error {
	var c connectRequest
	if err := wire.Decode(req, &c); err != nil {
		return err
	}
	vm, err := s.Connections.ConnectNetwork(req.Context(), req.PathValue("vm"), c.Network)
	return answerVM(w, vm, err)
}
