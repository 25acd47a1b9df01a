package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"banger"
	"banger/internal/api/wire"
)

// Probes tells what the ready probes of VMs have seen.
type Probes interface {
	// Readiness returns when a VM is ready, or an error after a time. If that is 0, it returns what is known now.
	Readiness(ctx context.Context, ref string, within time.Duration) (banger.Readiness, error)
}

var paramWithin = parameter{"within", "answer with an error after so many seconds; default 60", 0, false}

// lookTime bounds how long a list of VMs waits for a guest that does not answer.
const lookTime = time.Second

// withinOf reads ?within=SECONDS.
func withinOf(req *http.Request) (time.Duration, error) {
	n, err := numberOf(req.URL.Query(), "within", 60, 1, 24*60*60)
	return time.Duration(n) * time.Second, err
}

func ready(s *Server, w http.ResponseWriter, req *http.Request) error {
	within, err := withinOf(req)
	if err != nil {
		return err
	}
	r, err := s.Probes.Readiness(req.Context(), req.PathValue("vm"), within)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, r)
}

// look sets the readiness of the VMs that have a probe and run. It asks all guests at once.
func (s *Server) look(ctx context.Context, list []banger.VM) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var wg sync.WaitGroup
	for i := range list {
		if vm := &list[i]; vm.Probe != nil && vm.State == banger.StateRunning {
			wg.Go(func() {
				r, err := s.Probes.Readiness(ctx, vm.ID, 0)
				if err != nil {
					r = banger.Readiness{Reason: "its guest does not answer"}
				}
				vm.Readiness = &r
			})
		}
	}
	wg.Wait()
}
