package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/text"
)

// Server answers the API. The caller sets its fields before Handler is called.
type Server struct {
	Machines       Machines
	Sleepers       Sleepers
	Updater        Updater
	Inventory      Inventory
	Histories      Histories
	Guests         Guests
	Sessions       Sessions
	SessionStreams SessionStreams
	Probes         Probes
	Workspaces     Workspaces
	Secrets        Secrets
	Connections    Connections
	Decisions      Decisions
	Networks       Networks
	Images         Images
	Transfers      Transfers
	Kernels        Kernels
	Templates      Templates
	Snapshots      Snapshots
	Comparisons    Comparisons
	UI             UI
	Reporter       Reporter

	Version func(context.Context) wire.Version
	Stop    func() // asks the daemon to end
	Splice  func(ctx context.Context, a, b net.Conn)
	Log     *slog.Logger
}

// Handler returns the API as an http.Handler.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) { s.serve(r, w, req) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		wire.WriteError(w, banger.Errorf(banger.CodeNotFound, "the API has no %s %s", req.Method, req.URL.Path).
			WithHint("see /openapi.json"))
	})
	return mux
}

// reachesOut are the operations in which the daemon may ask a registry or a mirror of packages for its client.
var reachesOut = map[string]bool{
	"createVM": true, "listImages": true, "pullImage": true, "pushImage": true, "pullKernel": true,
}

func (s *Server) serve(r route, w http.ResponseWriter, req *http.Request) {
	if v := req.Header.Get(wire.HeaderAPI); v != "" && v != strconv.Itoa(banger.APIVersion) && !r.anyVersion() {
		wire.WriteError(w, banger.Errorf(banger.CodeVersion, "this client speaks API %.20s, the daemon (%s) speaks API %d", v,
			banger.Version, banger.APIVersion).
			WithHint("restart the daemon with this client's version: banger daemon stop"))
		return
	}
	if reachesOut[r.name] {
		with, err := wire.TakeAccess(req)
		if err != nil {
			wire.WriteError(w, err)
			return
		}
		req = with
	}
	limit, patience := int64(maxBody), bodyTime
	if r.path == loadPath || r.path == extendPath || r.path == sendPath {
		limit, patience = maxArchive, archiveTime
	}
	req.Body = wire.Patiently(w, req, limit, patience)
	began := time.Now()
	err := r.handle(s, w, req)
	s.Log.Debug("request", "method", req.Method, "path", req.URL.Path, "took", time.Since(began), "err", err)
	if err != nil {
		if banger.CodeOf(err) == banger.CodeInternal {
			s.Log.Error("request failed", "method", req.Method, "path", req.URL.Path, "err", err)
		}
		wire.WriteError(w, err)
	}
}

// stream answers with NDJSON events. If the result is known before the first event, the status is that of the result.
// Otherwise the status is 200, and an error is the last line.
func stream(w http.ResponseWriter, f func(emit banger.Emit) (banger.Event, error)) error {
	var mu sync.Mutex
	started, closed := false, false
	send := func(e banger.Event) {
		mu.Lock()
		defer mu.Unlock()
		if closed {
			return
		}
		if !started {
			w.Header().Set("Content-Type", ndjson)
			started = true
		}
		e.Time = time.Now().UTC()
		if e.VM != nil {
			vm := hideEnv(*e.VM)
			e.VM = &vm
		}
		text.WriteJSON(w, e, "")
		w.(http.Flusher).Flush()
	}
	last, err := f(send)
	defer func() { // an event of a goroutine that outlives f must not touch w
		mu.Lock()
		closed = true
		mu.Unlock()
	}()
	if err != nil {
		if !started {
			return err
		}
		last = banger.Event{VMs: last.VMs, Error: wire.NewError(err)}
	}
	send(last)
	return nil
}

func openAPIDocument(_ *Server, w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(openAPI)
	return err
}

func version(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteJSON(w, s.Version(req.Context()))
}

func shutdown(s *Server, w http.ResponseWriter, req *http.Request) error {
	err := wire.WriteJSON(w, s.Version(req.Context()))
	s.Stop()
	return err
}

func openUI(s *Server, w http.ResponseWriter, req *http.Request) error {
	address, err := s.UI.Open(req.Context())
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, wire.UI{URL: address})
}

func closeUI(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := s.UI.Close(req.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// wantsUpgrade returns an error unless a request asks for a protocol, without which what, its kind, cannot go on.
func wantsUpgrade(req *http.Request, what, protocol string) error {
	if req.Header.Get("Upgrade") == protocol {
		return nil
	}
	return banger.Errorf(banger.CodeInvalid, "%s needs the header Upgrade: %s", what, protocol)
}

// giver is a stream whose other end can serve the client directly, without this process.
type giver interface {
	Give(client net.Conn) (bool, error)
}

// handOver joins the client's connection with a stream of the agent. If the stream can be given away, this process is
// no longer involved. Data of the client then costs this process nothing, and the client's command survives the end
// of this process.
func (s *Server) handOver(w http.ResponseWriter, req *http.Request, protocol string, stream net.Conn) error {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		stream.Close()
		return err
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if n := buf.Reader.Buffered(); n > 0 { // frames that the client sent directly after its request
		early, _ := buf.Reader.Peek(n)
		if _, err := stream.Write(early); err != nil {
			stream.Close()
		}
	}
	if g, ok := stream.(giver); ok {
		if given, _ := g.Give(conn); given {
			return conn.Close() // closing tells the client about the failure
		}
	}
	s.Splice(context.WithoutCancel(req.Context()), conn, stream)
	return nil
}
