package api

import (
	"net/http"
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
	var body wire.CreateRequest
	if err := wire.Decode(req, &body); err != nil {
		return err
	}
	start := req.URL.Query().Get("start") == "true"
	return stream(w, func(emit banger.Emit) (banger.Event, error) {
		vm, err := s.Machines.Create(req.Context(), body.Spec, body.Secrets, start, emit)
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
	vm, err := s.Sleepers.Suspend(req.Context(), req.PathValue("vm"), withSecrets(req))
	return answerVM(w, vm, err)
}

// withSecrets reads ?with_secrets=true.
func withSecrets(req *http.Request) bool { return req.URL.Query().Get("with_secrets") == "true" }

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
	var body wire.RenameRequest
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
