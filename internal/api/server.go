package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/text"
)

// Server answers the API. The caller sets its fields before Handler is called.
type Server struct {
	Machines    Machines
	Inventory   Inventory
	Guests      Guests
	Connections Connections
	Networks    Networks
	Images      Images
	Transfers   Transfers
	Kernels     Kernels

	Version func(context.Context) Version
	Stop    func() // asks the daemon to end
	Splice  func(ctx context.Context, a, b net.Conn)
	Log     *slog.Logger
}

type route struct {
	method, path string
	handle       func(*Server, http.ResponseWriter, *http.Request) error
}

// loadPath accepts an archive, which may be as large as the host's disk. All other bodies are small.
const (
	loadPath   = "/v1/images/load"
	maxArchive = 1 << 40 // bytes
)

// routes is the whole API. A test compares it with openapi.json.
var routes = []route{
	{"GET", "/openapi.json", (*Server).openAPI},
	{"GET", "/v1/version", (*Server).version},
	{"POST", "/v1/shutdown", (*Server).shutdown},
	{"GET", "/v1/vms", (*Server).listVMs},
	{"POST", "/v1/vms", (*Server).createVM},
	{"POST", "/v1/vms/prune", (*Server).pruneVMs},
	{"GET", "/v1/vms/{vm}", (*Server).getVM},
	{"DELETE", "/v1/vms/{vm}", (*Server).removeVM},
	{"POST", "/v1/vms/{vm}/start", (*Server).startVM},
	{"POST", "/v1/vms/{vm}/stop", (*Server).stopVM},
	{"POST", "/v1/vms/{vm}/restart", (*Server).restartVM},
	{"POST", "/v1/vms/{vm}/kill", (*Server).killVM},
	{"POST", "/v1/vms/{vm}/rename", (*Server).renameVM},
	{"POST", "/v1/vms/{vm}/commit", (*Server).commitVM},
	{"POST", "/v1/vms/{vm}/exec", (*Server).exec},
	{"POST", "/v1/vms/{vm}/files", (*Server).files},
	{"POST", "/v1/vms/{vm}/ssh", (*Server).ssh},
	{"GET", "/v1/vms/{vm}/wait", (*Server).waitVM},
	{"GET", "/v1/vms/{vm}/logs", (*Server).logs},
	{"GET", "/v1/vms/{vm}/stats", (*Server).stats},
	{"GET", "/v1/vms/{vm}/ports", (*Server).listPorts},
	{"POST", "/v1/vms/{vm}/forwards", (*Server).addForward},
	{"DELETE", "/v1/vms/{vm}/forwards", (*Server).removeForward},
	{"PUT", "/v1/vms/{vm}/policy", (*Server).setPolicy},
	{"GET", "/v1/vms/{vm}/denials", (*Server).denials},
	{"PUT", "/v1/vms/{vm}/network", (*Server).connectNetwork},
	{"GET", "/v1/networks", (*Server).listNetworks},
	{"POST", "/v1/networks", (*Server).createNetwork},
	{"GET", "/v1/networks/{network}", (*Server).getNetwork},
	{"DELETE", "/v1/networks/{network}", (*Server).removeNetwork},
	{"GET", "/v1/images", (*Server).listImages},
	{"POST", "/v1/images/pull", (*Server).pullImage},
	{"POST", "/v1/images/push", (*Server).pushImage},
	{"POST", "/v1/images/register", (*Server).registerImage},
	{"POST", "/v1/images/promote", (*Server).promoteImage},
	{"POST", "/v1/images/tag", (*Server).tagImage},
	{"GET", "/v1/images/save", (*Server).saveImages},
	{"POST", loadPath, (*Server).loadImages},
	{"GET", "/v1/images/usage", (*Server).imageUsage},
	{"POST", "/v1/images/prune", (*Server).pruneImages},
	{"GET", "/v1/image", (*Server).getImage},
	{"GET", "/v1/image/history", (*Server).imageHistory},
	{"DELETE", "/v1/image", (*Server).removeImage},
	{"GET", "/v1/kernels", (*Server).listKernels},
	{"POST", "/v1/kernels/pull", (*Server).pullKernel},
	{"POST", "/v1/kernels/import", (*Server).importKernel},
	{"GET", "/v1/kernels/{kernel}", (*Server).getKernel},
	{"DELETE", "/v1/kernels/{kernel}", (*Server).removeKernel},
}

// Handler returns the API as an http.Handler.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) { s.serve(r, w, req) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		writeError(w, banger.Errorf(banger.CodeNotFound, "the API has no %s %s", req.Method, req.URL.Path).
			WithHint("see /openapi.json"))
	})
	return mux
}

func (s *Server) serve(r route, w http.ResponseWriter, req *http.Request) {
	if v := req.Header.Get(headerAPI); v != "" && v != strconv.Itoa(banger.APIVersion) {
		writeError(w, banger.Errorf(banger.CodeVersion, "this client speaks API %.20s, the daemon (%s) speaks API %d", v,
			banger.Version, banger.APIVersion).
			WithHint("restart the daemon with this client's version: banger daemon stop"))
		return
	}
	limit, patience := int64(maxBody), bodyTime
	if r.path == loadPath {
		limit, patience = maxArchive, archiveTime
	}
	req.Body = patiently(w, req, limit, patience)
	began := time.Now()
	err := r.handle(s, w, req)
	s.Log.Debug("request", "method", req.Method, "path", req.URL.Path, "took", time.Since(began), "err", err)
	if err != nil {
		if banger.CodeOf(err) == banger.CodeInternal {
			s.Log.Error("request failed", "method", req.Method, "path", req.URL.Path, "err", err)
		}
		writeError(w, err)
	}
}

func writeError(w http.ResponseWriter, err error) {
	e := wireError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(e.Code))
	text.WriteJSON(w, errorBody{e}, "")
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return text.WriteJSON(w, v, "")
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
			vm := e.VM.HideEnv()
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
		last = banger.Event{Error: wireError(err)}
	}
	send(last)
	return nil
}

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(openAPI)
	return err
}

func (s *Server) version(w http.ResponseWriter, req *http.Request) error {
	return writeJSON(w, s.Version(req.Context()))
}

func (s *Server) shutdown(w http.ResponseWriter, req *http.Request) error {
	err := writeJSON(w, s.Version(req.Context()))
	s.Stop()
	return err
}

func (s *Server) listVMs(w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	keep, err := parseFilters(q["filter"])
	if err != nil {
		return err
	}
	all := q.Get("all") == "true"
	list := s.Inventory.List(func(vm banger.VM) bool { return (all || !vm.State.AtRest()) && keep(vm) })
	if list == nil {
		list = []banger.VM{}
	}
	return writeJSON(w, hidden(list))
}

// hidden returns list with HiddenValue in place of the values of environments.
func hidden(list []banger.VM) []banger.VM {
	for i := range list {
		list[i] = list[i].HideEnv()
	}
	return list
}

// parseFilters parses name=, state= (or status=), image=, id= and label=KEY[=VALUE]. A VM must match all filters.
func parseFilters(filters []string) (func(banger.VM) bool, error) {
	var tests []func(banger.VM) bool
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		var test func(banger.VM) bool
		switch {
		case !ok:
		case key == "name":
			test = func(vm banger.VM) bool { return strings.Contains(vm.Name, value) }
		case key == "id":
			test = func(vm banger.VM) bool { return strings.HasPrefix(vm.ID, value) }
		case key == "state" || key == "status":
			test = func(vm banger.VM) bool { return string(vm.State) == value }
		case key == "image":
			test = func(vm banger.VM) bool { return vm.Spec.Image == value || vm.ImageDigest == value }
		case key == "label":
			name, want, exact := strings.Cut(value, "=")
			test = func(vm banger.VM) bool {
				have, ok := vm.Spec.Labels[name]
				return ok && (!exact || have == want)
			}
		}
		if test == nil {
			return nil, banger.Errorf(banger.CodeInvalid, "%q is not a filter", f).
				WithHint("use name=, id=, state=, image= or label=KEY[=VALUE]")
		}
		tests = append(tests, test)
	}
	return func(vm banger.VM) bool {
		for _, t := range tests {
			if !t(vm) {
				return false
			}
		}
		return true
	}, nil
}

func (s *Server) createVM(w http.ResponseWriter, req *http.Request) error {
	var spec banger.Spec
	if err := decode(req, &spec); err != nil {
		return err
	}
	start := req.URL.Query().Get("start") == "true"
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Machines.Create(req.Context(), spec, start, emit)
		return banger.Event{VM: &vm}, err
	})
}

func (s *Server) pruneVMs(w http.ResponseWriter, req *http.Request) error {
	removed, err := s.Machines.Prune(req.Context())
	if err != nil {
		return err
	}
	if removed == nil {
		removed = []banger.VM{}
	}
	return writeJSON(w, hidden(removed))
}

// answerVM writes a VM without the values of its environment, or returns err if it is not nil.
func answerVM(w http.ResponseWriter, vm banger.VM, err error) error {
	if err != nil {
		return err
	}
	return writeJSON(w, vm.HideEnv())
}

func (s *Server) getVM(w http.ResponseWriter, req *http.Request) error {
	vm, err := s.Inventory.Get(req.PathValue("vm"))
	if err == nil && req.URL.Query().Get("env") == "true" {
		return writeJSON(w, vm)
	}
	return answerVM(w, vm, err)
}

func (s *Server) removeVM(w http.ResponseWriter, req *http.Request) error {
	if err := s.Machines.Remove(req.Context(), req.PathValue("vm"), req.URL.Query().Get("force") == "true"); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) startVM(w http.ResponseWriter, req *http.Request) error {
	attach := req.URL.Query().Get("attach") == "true"
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Machines.Start(req.Context(), req.PathValue("vm"), attach, emit)
		return banger.Event{VM: &vm}, err
	})
}

// graceOf reads ?grace=SECONDS.
func graceOf(req *http.Request) (time.Duration, error) {
	text := req.URL.Query().Get("grace")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 3600 {
		return 0, banger.Errorf(banger.CodeInvalid, "grace is %q, but must be 0 to 3600 seconds", text)
	}
	return max(time.Duration(n)*time.Second, time.Millisecond), nil
}

func (s *Server) stopVM(w http.ResponseWriter, req *http.Request) error {
	grace, err := graceOf(req)
	if err != nil {
		return err
	}
	vm, err := s.Machines.Stop(req.Context(), req.PathValue("vm"), grace)
	return answerVM(w, vm, err)
}

func (s *Server) restartVM(w http.ResponseWriter, req *http.Request) error {
	grace, err := graceOf(req)
	if err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Machines.Restart(req.Context(), req.PathValue("vm"), grace, emit)
		return banger.Event{VM: &vm}, err
	})
}

func (s *Server) killVM(w http.ResponseWriter, req *http.Request) error {
	signal := 9
	if text := req.URL.Query().Get("signal"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 64 {
			return banger.Errorf(banger.CodeInvalid, "signal is %q, but must be 1 to 64", text)
		}
		signal = n
	}
	vm, err := s.Machines.Kill(req.Context(), req.PathValue("vm"), signal)
	return answerVM(w, vm, err)
}

func (s *Server) renameVM(w http.ResponseWriter, req *http.Request) error {
	var body renameRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	vm, err := s.Machines.Rename(req.Context(), req.PathValue("vm"), body.Name)
	return answerVM(w, vm, err)
}

func (s *Server) waitVM(w http.ResponseWriter, req *http.Request) error {
	vm, err := s.Inventory.Wait(req.Context(), req.PathValue("vm"))
	return answerVM(w, vm, err)
}

// exec connects the client with the agent's stream. The frames pass unchanged.
func (s *Server) exec(w http.ResponseWriter, req *http.Request) error {
	var e banger.Exec
	if err := decode(req, &e); err != nil {
		return err
	}
	if req.Header.Get("Upgrade") != upgradeExec {
		return banger.Errorf(banger.CodeInvalid, "an exec needs the header Upgrade: %s", upgradeExec)
	}
	if !e.Main {
		if err := e.Check(); err != nil {
			return err
		}
	}
	stream, err := s.Guests.Exec(req.Context(), req.PathValue("vm"), e)
	if err != nil {
		return err
	}
	return s.handOver(w, req, upgradeExec, stream)
}

func (s *Server) logs(w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	tail, err := tailOf(q)
	if err != nil {
		return err
	}
	if _, err := s.Inventory.Get(req.PathValue("vm")); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	err = s.Guests.Logs(req.Context(), req.PathValue("vm"), tail, q.Get("follow") == "true", flushWriter{w})
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Warn("logs", "err", err) // the status has already been sent
	}
	return nil
}

// flushWriter flushes after each write.
type flushWriter struct{ w http.ResponseWriter }

func (f flushWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.w.(http.Flusher).Flush()
	return n, err
}

func (s *Server) listKernels(w http.ResponseWriter, _ *http.Request) error {
	return writeList(w, s.Kernels.Kernels)
}

// writeList writes an empty list as [], not null.
func writeList[T any](w http.ResponseWriter, list func() ([]T, error)) error {
	items, err := list()
	if err != nil {
		return err
	}
	if items == nil {
		items = []T{}
	}
	return writeJSON(w, items)
}

func (s *Server) pullKernel(w http.ResponseWriter, req *http.Request) error {
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		k, err := s.Kernels.PullKernel(req.Context(), emit)
		return banger.Event{Kernel: &k}, err
	})
}

func (s *Server) importKernel(w http.ResponseWriter, req *http.Request) error {
	var body importRequest
	if err := decode(req, &body); err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		k, err := s.Kernels.ImportKernel(req.Context(), body.Name, body.Image, body.Modules, emit)
		return banger.Event{Kernel: &k}, err
	})
}

func (s *Server) getKernel(w http.ResponseWriter, req *http.Request) error {
	k, err := s.Kernels.Kernel(req.PathValue("kernel"))
	if err != nil {
		return err
	}
	return writeJSON(w, k)
}

func (s *Server) removeKernel(w http.ResponseWriter, req *http.Request) error {
	if err := s.Kernels.RemoveKernel(req.PathValue("kernel")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// bufferedConn first reads what an HTTP reader had buffered, and then the connection.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite half-closes the connection if its transport can do that.
func (c bufferedConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return io.ErrClosedPipe
}
