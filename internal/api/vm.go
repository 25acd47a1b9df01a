package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/api/wire"
)

func listVMs(s *Server, w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	keep, err := parseFilters(q["filter"])
	if err != nil {
		return err
	}
	all := q.Get("all") == "true"
	list := s.Inventory.List(func(vm banger.VM) bool {
		return (all || !vm.State.AtRest() || !vm.RestartAt.IsZero()) && keep(vm)
	})
	if list == nil {
		list = []banger.VM{}
	}
	s.look(req.Context(), list)
	if q.Get("size") == "true" {
		for i := range list {
			list[i].DiskUsed = s.Inventory.DiskUsed(list[i].ID)
		}
	}
	return wire.WriteJSON(w, hidden(list))
}

// hidden returns list with HiddenValue in place of the values of environments.
func hidden(list []banger.VM) []banger.VM {
	for i := range list {
		list[i] = hideEnv(list[i])
	}
	return list
}

// hideEnv returns vm with banger.HiddenValue in place of the values that Spec.Env gives, also in the main command.
func hideEnv(vm banger.VM) banger.VM {
	given := map[string]bool{}
	hide := func(env []string, all bool) []string {
		list := slices.Clone(env)
		for i, kv := range list {
			key, _, _ := strings.Cut(kv, "=")
			if all {
				given[key] = true
			}
			if given[key] {
				list[i] = key + "=" + banger.HiddenValue
			}
		}
		return list
	}
	vm.Spec.Env = hide(vm.Spec.Env, true)
	if vm.Main != nil {
		main := *vm.Main
		main.Env = hide(main.Env, false)
		vm.Main = &main
	}
	return vm
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
			test = func(vm banger.VM) bool {
				ended := vm.State == banger.StateStopped || vm.State == banger.StateFailed
				return string(vm.State) == value || value == "exited" && ended // docker's word
			}
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

func createVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	var spec banger.Spec
	if err := wire.Decode(req, &spec); err != nil {
		return err
	}
	start := req.URL.Query().Get("start") == "true"
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Machines.Create(req.Context(), spec, start, emit)
		return banger.Event{VM: &vm}, err
	})
}

func pruneVMs(s *Server, w http.ResponseWriter, req *http.Request) error {
	removed, err := s.Machines.Prune(req.Context())
	if err != nil {
		return err
	}
	if removed == nil {
		removed = []banger.VM{}
	}
	return wire.WriteJSON(w, hidden(removed))
}

// answerVM writes a VM without the values of its environment, or returns err if it is not nil.
func answerVM(w http.ResponseWriter, vm banger.VM, err error) error {
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, hideEnv(vm))
}

func getVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	vm, err := s.Inventory.Get(req.PathValue("vm"))
	one := []banger.VM{vm}
	s.look(req.Context(), one)
	vm = one[0]
	if err == nil && req.URL.Query().Get("env") == "true" {
		return wire.WriteJSON(w, vm)
	}
	return answerVM(w, vm, err)
}

func updateVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	var u banger.Update
	if err := wire.Decode(req, &u); err != nil {
		return err
	}
	vm, err := s.Updater.Update(req.Context(), req.PathValue("vm"), u)
	return answerVM(w, vm, err)
}

func removeVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	if err := s.Machines.Remove(req.Context(), req.PathValue("vm"), req.URL.Query().Get("force") == "true"); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func startVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	q := req.URL.Query()
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		attach, cold := q.Get("attach") == "true", q.Get("cold") == "true"
		vm, err := s.Machines.Start(req.Context(), req.PathValue("vm"), attach, cold, emit)
		return banger.Event{VM: &vm}, err
	})
}

func pauseVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	vm, err := s.Sleepers.Pause(req.Context(), req.PathValue("vm"))
	return answerVM(w, vm, err)
}

func suspendVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	vm, err := s.Sleepers.Suspend(req.Context(), req.PathValue("vm"))
	return answerVM(w, vm, err)
}

func resumeVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Sleepers.Resume(req.Context(), req.PathValue("vm"), emit)
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

func stopVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	grace, err := graceOf(req)
	if err != nil {
		return err
	}
	vm, err := s.Machines.Stop(req.Context(), req.PathValue("vm"), grace)
	return answerVM(w, vm, err)
}

func restartVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	grace, err := graceOf(req)
	if err != nil {
		return err
	}
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Machines.Restart(req.Context(), req.PathValue("vm"), grace, emit)
		return banger.Event{VM: &vm}, err
	})
}

func killVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	signal, err := numberOf(req.URL.Query(), "signal", 9, 1, 64)
	if err != nil {
		return err
	}
	vm, err := s.Machines.Kill(req.Context(), req.PathValue("vm"), signal)
	return answerVM(w, vm, err)
}

func renameVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	var body renameRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	vm, err := s.Machines.Rename(req.Context(), req.PathValue("vm"), body.Name)
	return answerVM(w, vm, err)
}

func waitVM(s *Server, w http.ResponseWriter, req *http.Request) error {
	vm, err := s.Inventory.Wait(req.Context(), req.PathValue("vm"))
	return answerVM(w, vm, err)
}

func (c vmClient) streamVM(ctx context.Context, path string, query url.Values, body any,
	emit banger.Emit) (banger.VM, error) {
	e, err := c.stream(ctx, path, query, body, emit)
	if err != nil || e.VM == nil {
		return banger.VM{}, err
	}
	return *e.VM, nil
}

func vmPath(ref, verb string) string {
	p := "/v1/vms/" + ref
	if verb != "" {
		p += "/" + verb
	}
	return p
}

// Create makes a VM and, with start, boots it.
func (c vmClient) Create(ctx context.Context, spec banger.Spec, start bool, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, "/v1/vms", url.Values{"start": {strconv.FormatBool(start)}}, spec, emit)
}

// Start boots a VM.
func (c vmClient) Start(ctx context.Context, ref string, attach, cold bool, emit banger.Emit) (banger.VM, error) {
	q := url.Values{"attach": {strconv.FormatBool(attach)}, "cold": {strconv.FormatBool(cold)}}
	return c.streamVM(ctx, vmPath(ref, "start"), q, nil, emit)
}

// Pause stops the CPUs of a running VM.
func (c vmClient) Pause(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "pause"), nil, nil, &vm)
}

// Suspend writes a VM's memory to disk and ends its processes on the host.
func (c vmClient) Suspend(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "suspend"), nil, nil, &vm)
}

// Resume lets a paused or suspended VM go on.
func (c vmClient) Resume(ctx context.Context, ref string, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, vmPath(ref, "resume"), nil, nil, emit)
}

// Restart stops and starts a VM.
func (c vmClient) Restart(ctx context.Context, ref string, grace time.Duration, emit banger.Emit) (banger.VM, error) {
	return c.streamVM(ctx, vmPath(ref, "restart"), graceQuery(grace), nil, emit)
}

// graceQuery returns the query for grace. A negative grace leaves the daemon's default in force.
func graceQuery(grace time.Duration) url.Values {
	if grace < 0 {
		return nil
	}
	return url.Values{"grace": {strconv.Itoa(int(grace / time.Second))}}
}

// Stop shuts a VM down. grace has a resolution of one second.
func (c vmClient) Stop(ctx context.Context, ref string, grace time.Duration) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "stop"), graceQuery(grace), nil, &vm)
}

// Kill sends a signal to a VM's main command.
func (c vmClient) Kill(ctx context.Context, ref string, signal int) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "kill"), url.Values{"signal": {strconv.Itoa(signal)}}, nil, &vm)
}

// Remove deletes a VM.
func (c vmClient) Remove(ctx context.Context, ref string, force bool) error {
	return c.call(ctx, "DELETE", vmPath(ref, ""), url.Values{"force": {strconv.FormatBool(force)}}, nil, nil)
}

// Update changes what a VM does by itself, and its sizes.
func (c vmClient) Update(ctx context.Context, ref string, u banger.Update) (vm banger.VM, err error) {
	return vm, c.call(ctx, "PATCH", vmPath(ref, ""), nil, u, &vm)
}

// Rename gives a VM another name.
func (c vmClient) Rename(ctx context.Context, ref, name string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "POST", vmPath(ref, "rename"), nil, renameRequest{name}, &vm)
}

// Wait returns when a VM is at rest or has been removed.
func (c vmClient) Wait(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, "wait"), nil, nil, &vm)
}

// Get returns one VM, with HiddenValue in place of the values of its environment.
func (c vmClient) Get(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, ""), nil, nil, &vm)
}

// GetWithEnv returns one VM with the values of its environment.
func (c vmClient) GetWithEnv(ctx context.Context, ref string) (vm banger.VM, err error) {
	return vm, c.call(ctx, "GET", vmPath(ref, ""), url.Values{"env": {"true"}}, nil, &vm)
}

// List returns VMs, newest first. Without all, it returns only running VMs.
func (c vmClient) List(ctx context.Context, all bool, filters []string) (list []banger.VM, err error) {
	return list, c.call(ctx, "GET", "/v1/vms", url.Values{"all": {strconv.FormatBool(all)}, "filter": filters}, nil, &list)
}

// ListWithSizes is List with DiskUsed of each VM.
func (c vmClient) ListWithSizes(ctx context.Context, all bool, filters []string) (list []banger.VM, err error) {
	q := url.Values{"all": {strconv.FormatBool(all)}, "filter": filters, "size": {"true"}}
	return list, c.call(ctx, "GET", "/v1/vms", q, nil, &list)
}

// Prune removes all VMs at rest.
func (c vmClient) Prune(ctx context.Context) (list []banger.VM, err error) {
	return list, c.call(ctx, "POST", "/v1/vms/prune", nil, nil, &list)
}
