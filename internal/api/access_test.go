package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/wire"
)

type kernelsOfTheDaemon = Kernels // its own name is that of a method

// kernels notes the contexts in which kernels are pulled.
type kernels struct {
	kernelsOfTheDaemon
	seen func(context.Context)
}

func (k kernels) PullKernel(ctx context.Context, _ banger.Emit) (banger.Kernel, error) {
	k.seen(ctx)
	return banger.Kernel{}, nil
}

// TestAccessTravelsWithTheRequest checks that the daemon gets what the client's context has, and that nothing of it is
// in its log or left in the headers.
func TestAccessTravelsWithTheRequest(t *testing.T) {
	sent := banger.RegistryAccess{
		Logins:     []banger.RegistryLogin{{Places: []string{"one.test/a"}, Username: "me", Password: "hush"}},
		Known:      []string{"one.test"},
		HTTPSProxy: "http://me:hush@proxy:1",
		NoProxy:    "local",
	}
	for _, want := range []banger.RegistryAccess{sent, {}} {
		var got banger.RegistryAccess
		var log strings.Builder
		s := &Server{
			Kernels: kernels{seen: func(ctx context.Context) { got = banger.RegistryAccessOf(ctx) }},
			Log:     slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
		req := httptest.NewRequest("POST", "/v1/kernels/pull", nil)
		if err := wire.SetAccess(req, want); err != nil {
			t.Fatal(err)
		}
		if there := req.Header.Get(wire.HeaderAccess) != ""; there != !reflect.DeepEqual(want, banger.RegistryAccess{}) {
			t.Errorf("the header is there: %v", there)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		if w.Code != http.StatusOK || !reflect.DeepEqual(got, want) {
			t.Errorf("the daemon gets %#v, and answers %d %s", got, w.Code, w.Body)
		}
		if strings.Contains(log.String(), "hush") || !strings.Contains(log.String(), "/v1/kernels/pull") {
			t.Errorf("the log is %s", log.String())
		}
		if req.Header.Get(wire.HeaderAccess) != "" {
			t.Error("it is still among the headers")
		}
	}
}

// TestAccessThatIsWrong checks that it is refused without a word of it in the error, and that too much is not sent.
func TestAccessThatIsWrong(t *testing.T) {
	s := &Server{Log: slog.New(slog.DiscardHandler)}
	for _, value := range []string{"hush", "eyJodXNoIjoxfQ==", "eyJsb2dpbnMiOiJodXNoIn0=", "e30=e30="} {
		req := httptest.NewRequest("POST", "/v1/images/pull", nil)
		req.Header.Set(wire.HeaderAccess, value)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "is not the base64 of logins") ||
			strings.Contains(w.Body.String(), "hush") {
			t.Errorf("%q: %d %s", value, w.Code, w.Body)
		}
	}
	req := httptest.NewRequest("POST", "/v1/images/pull", nil)
	err := wire.SetAccess(req, banger.RegistryAccess{NoProxy: strings.Repeat("x", wire.MaxAccess)})
	if banger.CodeOf(err) != banger.CodeInvalid || req.Header.Get(wire.HeaderAccess) != "" {
		t.Errorf("the error is %v", err)
	}
}

// TestOperationsThatReachOutAreRoutes checks the names in reachesOut.
func TestOperationsThatReachOutAreRoutes(t *testing.T) {
	for name := range reachesOut {
		if !slices.ContainsFunc(routes, func(r route) bool { return r.name == name }) {
			t.Errorf("no route is called %q", name)
		}
	}
}
