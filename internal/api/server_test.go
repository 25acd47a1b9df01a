package api_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/api/wire"
	"banger/internal/testing/hosttest"
)

func TestMain(m *testing.M) { os.Exit(hosttest.Main(m)) }

// world is a real daemon, and our client of it.
type world struct {
	*client.Client
	h      *hosttest.Host
	socket string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	h := hosttest.New(t)
	socket := h.Serve()
	return &world{client.New(socket), h, socket}
}

// create makes a VM.
func (w *world) create(t *testing.T, name string, start bool, cmd ...string) banger.VM {
	t.Helper()
	spec := banger.Spec{Name: name, Image: w.h.Image, Disk: banger.MinDisk, Cmd: cmd,
		Labels: map[string]string{"tier": name}}
	vm, err := w.Create(t.Context(), spec, nil, start, banger.Discard)
	hosttest.Check(t, err)
	return vm
}

// http returns a client of the daemon without our client's habits.
func (w *world) http() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", w.socket)
		},
	}}
}

// TestFilters lists VMs by each filter.
func TestFilters(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	a := w.create(t, "alpha", false, "sleep", "1000")
	w.create(t, "beta", true, "sleep", "1000")
	for filters, want := range map[string]string{
		"":                             "beta alpha",
		"name=alp":                     "alpha",
		"id=" + a.ID[:6]:               "alpha",
		"state=running":                "beta",
		"status=created":               "alpha",
		"image=" + w.h.Image:           "beta alpha",
		"image=" + a.ImageDigest:       "beta alpha",
		"image=other":                  "",
		"label=tier":                   "beta alpha",
		"label=tier=beta":              "beta",
		"label=none":                   "",
		"label=tier name=a state=none": "",
		"label=tier name=eta":          "beta",
		"name":                         "error",
		"colour=red":                   "error",
	} {
		list, err := w.List(ctx, true, strings.Fields(filters))
		got := ""
		for _, vm := range list {
			got += " " + vm.Name
		}
		if err != nil && banger.CodeOf(err) == banger.CodeInvalid {
			got = " error"
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("%q lists %q, %v, not %q", filters, got, err, want)
		}
	}
	if list, err := w.List(ctx, false, nil); err != nil || len(list) != 1 {
		t.Errorf("without all there are %v, %v", list, err)
	}
}

// TestAnyClientAsksForTheVersionAndEndsTheDaemon checks that a client of another version of the API can do what an
// upgrade needs.
func TestAnyClientAsksForTheVersionAndEndsTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, call := range [][2]string{{"GET", "/v1/version"}, {"POST", "/v1/shutdown"}} {
		req, err := http.NewRequest(call[0], "http://banger"+call[1], nil)
		hosttest.Check(t, err)
		req.Header.Set("Banger-API", "999")
		resp, err := w.http().Do(req)
		hosttest.Check(t, err)
		var v wire.Version
		err = json.NewDecoder(resp.Body).Decode(&v)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || v.Version != banger.Version {
			t.Errorf("%s is answered by %s, %+v, %v", call, resp.Status, v, err)
		}
	}
}

// TestWrongRequests sends requests that no client of ours sends.
func TestWrongRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(t, "box", false, "sleep", "1000")
	long := `{"image":"` + strings.Repeat("x", 2<<20) + `"}`
	for name, c := range map[string]struct {
		method, path, body string
		headers            map[string]string
		status             int
		message            string
	}{
		"another version": {"GET", "/v1/vms", "", map[string]string{"Banger-API": "999"}, http.StatusUpgradeRequired,
			"this client speaks API 999, the daemon (" + banger.Version + ") speaks API 1"},
		"no route":       {"GET", "/v2/vms", "", nil, 404, "the API has no GET /v2/vms"},
		"another method": {"PUT", "/v1/version", "", nil, 404, "the API has no PUT /v1/version"},
		"an unknown field": {"POST", "/v1/vms", `{"image":"x","colour":1}`, nil, 400,
			`cannot read the request body: json: unknown field "colour"`},
		"no JSON": {"POST", "/v1/vms/box/rename", `name`, nil, 400, "cannot read the request body: …"},
		"no body": {"POST", "/v1/vms/box/rename", ``, nil, 400, "cannot read the request body: EOF"},
		"two values": {"POST", "/v1/vms/box/rename", `{}{}`, nil, 400,
			"the request body goes on behind its JSON value"},
		"a long body": {"POST", "/v1/vms", long, nil, 400,
			"cannot read the request body: http: request body too large"},
		"no tail": {"GET", "/v1/vms/box/logs?tail=x", "", nil, 400,
			`tail is "x", but must be a number of lines`},
		"a negative tail": {"GET", "/v1/vms/box/denials?tail=-1", "", nil, 400,
			`tail is "-1", but must be a number of lines`},
		"no seconds": {"POST", "/v1/vms/box/policy/once", `{"rule":{"action":"allow","to":"host"},"seconds":3601}`, nil, 400,
			"a rule cannot be allowed for 3601 seconds, but for 1 to 3600"},
		"denied once": {"POST", "/v1/vms/box/policy/once", `{"rule":{"action":"deny","to":"host"}}`, nil, 400,
			`rule "deny host" does not allow anything, but only such rules count for a time`},
		"no rule": {"POST", "/v1/vms/box/policy/once", `{"rule":{"action":"allow","to":"-"}}`, nil, 400, `rule "allow -": …`},
		"no grace": {"POST", "/v1/vms/box/stop?grace=x", "", nil, 400,
			`grace is "x", but must be 0 to 3600 seconds`},
		"a long grace": {"POST", "/v1/vms/box/restart?grace=3601", "", nil, 400,
			`grace is "3601", but must be 0 to 3600 seconds`},
		"no signal": {"POST", "/v1/vms/box/kill?signal=65", "", nil, 400,
			`signal is "65", but must be 1 to 64`},
		"no filter": {"GET", "/v1/vms?filter=x", "", nil, 400, `"x" is not a filter`},
		"an exec without more": {"POST", "/v1/vms/box/exec", `{"args":["true"]}`, nil, 400,
			"an exec needs the header Upgrade: banger-exec"},
		"an exec of nothing": {"POST", "/v1/vms/box/exec", `{}`, map[string]string{"Upgrade": "banger-exec"}, 400,
			"…"},
		"a copy without more": {"POST", "/v1/vms/box/files?op=archive&path=/x&name=x", "", nil, 400,
			"a copy needs the header Upgrade: banger-files"},
		"no copy": {"POST", "/v1/vms/box/files?op=x&path=/x", "", nil, 400, "…"},
		"ssh without more": {"POST", "/v1/vms/box/ssh", `{}`, nil, 400,
			"a connection needs the header Upgrade: banger-ssh"},
		"a wrong forward": {"POST", "/v1/vms/box/forwards", `{}`, nil, 400, "…"},
		"a wrong name":    {"POST", "/v1/vms/box/rename", `{"name":"A b"}`, nil, 400, "…"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, "http://banger"+c.path, strings.NewReader(c.body))
			hosttest.Check(t, err)
			for k, v := range c.headers {
				req.Header.Set(k, v)
			}
			resp, err := w.http().Do(req)
			hosttest.Check(t, err)
			defer resp.Body.Close()
			var answer struct{ Error *banger.Error }
			hosttest.Check(t, json.NewDecoder(resp.Body).Decode(&answer))
			start, cut := strings.CutSuffix(c.message, "…")
			if e := answer.Error; resp.StatusCode != c.status || e == nil || e.Message != c.message &&
				!(cut && strings.HasPrefix(e.Message, start)) {
				t.Errorf("the answer is %s, %+v", resp.Status, e)
			}
		})
	}
}

// TestTheDescriptionIsServed checks that the API describes itself.
func TestTheDescriptionIsServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	resp, err := w.http().Get("http://banger/openapi.json")
	hosttest.Check(t, err)
	defer resp.Body.Close()
	var d struct{ OpenAPI string }
	if err := json.NewDecoder(resp.Body).Decode(&d); err != nil || d.OpenAPI == "" || resp.StatusCode != 200 {
		t.Errorf("it is %s, %+v, %v", resp.Status, d, err)
	}
	v, err := w.Shutdown(t.Context())
	if err != nil || v.PID != os.Getpid() {
		t.Errorf("it is %+v, %v", v, err)
	}
}
