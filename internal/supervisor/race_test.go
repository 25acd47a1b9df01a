package supervisor_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"banger"
	"banger/internal/supervisor"
	"banger/internal/testing/hosttest"
)

// quarrel lists operations that users may do to a VM at the same time.
var quarrel = []func(context.Context, *supervisor.Supervisor, string, int) error{
	func(ctx context.Context, s *supervisor.Supervisor, id string, _ int) error {
		return errOf(s.Stop(ctx, id, time.Second))
	},
	func(ctx context.Context, s *supervisor.Supervisor, id string, _ int) error {
		return errOf(s.Kill(ctx, id, 9))
	},
	func(ctx context.Context, s *supervisor.Supervisor, id string, _ int) error {
		return errOf(s.Start(ctx, id, false, false, banger.Discard))
	},
	func(ctx context.Context, s *supervisor.Supervisor, id string, i int) error {
		return errOf(s.Rename(ctx, id, fmt.Sprintf("name-%d", i)))
	},
	func(ctx context.Context, s *supervisor.Supervisor, id string, _ int) error {
		return s.Remove(ctx, id, false)
	},
	func(ctx context.Context, s *supervisor.Supervisor, id string, _ int) error {
		return s.Remove(ctx, id, true)
	},
}

// TestUsersWhoQuarrelLeaveTheVMConsistent runs eight users at once, without removals and with them.
func TestUsersWhoQuarrelLeaveTheVMConsistent(t *testing.T) {
	for name, deeds := range map[string]int{"over its state": 4, "over its life": 6} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := h.daemon()
			vm := h.run(s, h.spec("box"))
			var users sync.WaitGroup
			for i := range 8 {
				users.Go(func() {
					for round := range 3 {
						err := quarrel[(i+round)%deeds](h.ctx(), s, vm.ID, i)
						switch banger.CodeOf(err) {
						case banger.CodeConflict, banger.CodeNotFound, banger.CodeCanceled:
						default:
							if err != nil {
								t.Errorf("user %d, round %d: %v", i, round, err)
							}
						}
					}
				})
			}
			users.Wait()
			h.wantConsistent(s, vm.ID)
		})
	}
}

// wantConsistent checks that memory, row, files and processes agree about a VM, and that it can still be used.
func (h *host) wantConsistent(s *supervisor.Supervisor, id string) {
	h.t.Helper()
	vm, err := s.Get(id)
	if banger.CodeOf(err) == banger.CodeNotFound && err != nil {
		h.wantNothing(s)
		return
	}
	check(h.t, err)
	h.wantState(s, id, vm.State, "")
	switch {
	case vm.State == banger.StateRunning:
		if out, _ := h.sh(s, id, "echo well"); out != "well\n" {
			h.t.Errorf("a command in it prints %q", out)
		}
		if n := len(h.processes()); n != 2 {
			h.t.Errorf("it has %d processes", n)
		}
	case vm.State.AtRest():
		h.await("no process is left", func() bool { return len(h.processes()) == 0 })
		check(h.t, errOf(s.Start(h.ctx(), id, false, false, banger.Discard)))
	default:
		h.t.Errorf("it is %s, though nobody does anything", vm.State)
	}
	check(h.t, s.Remove(h.ctx(), id, true))
	h.wantNothing(s)
}

// TestManyWantOneName checks that one gets it, and that the others leave nothing behind.
func TestManyWantOneName(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	var won, lost int
	var mu sync.Mutex
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			_, err := s.Create(h.ctx(), h.spec("box"), nil, true, banger.Discard)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
				return
			}
			wantCode(t, err, banger.CodeConflict)
			lost++
		})
	}
	users.Wait()
	if won != 1 || lost != 7 || len(h.processes()) != 2 {
		t.Errorf("%d have the name, %d have not, and the processes are %v", won, lost, h.processes())
	}
}

// TestRemovalDuringCreation checks that a VM that is removed while its image is pulled is not created and leaves
// nothing behind.
func TestRemovalDuringCreation(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	ref, asked, open := h.slowImage()
	spec := h.spec("box")
	spec.Image, spec.Pull = ref, banger.PullMissing
	created := make(chan error)
	go func() { created <- errOf(s.Create(h.ctx(), spec, nil, true, banger.Discard)) }()
	<-asked
	check(t, s.Library().RemoveImage(h.image)) // not needed by any VM
	if removed, err := s.Prune(h.ctx()); err != nil || len(removed) != 0 {
		t.Errorf("a VM that is being made is pruned: %+v, %v", removed, err)
	}
	check(t, s.Remove(h.ctx(), "box", false))
	close(open)
	wantCode(t, <-created, banger.CodeNotFound)
	h.wantNothing(s)
}

// slowImage serves an image. Its first reader sends on asked and then waits until open is closed.
func (h *host) slowImage() (ref string, asked, open chan struct{}) {
	h.t.Helper()
	asked, open = make(chan struct{}), make(chan struct{})
	reg := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	gate := func() {}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gate()
		reg.ServeHTTP(w, r)
	}))
	h.t.Cleanup(server.Close)
	ref = strings.TrimPrefix(server.URL, "http://") + "/test/image:tag"
	tag, err := name.NewTag(ref)
	check(h.t, err)
	check(h.t, remote.Write(tag, hosttest.FakeImage(h.t)))
	var once sync.Once
	gate = func() {
		once.Do(func() { close(asked) })
		<-open
	}
	return ref, asked, open
}
