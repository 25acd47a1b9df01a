package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"banger"
)

// TestFlagsReachTheDaemon checks which request a command line becomes, where the host of the other tests cannot do what
// is asked for: it has no disk, no exposed ports, no registry and no bridges.
func TestFlagsReachTheDaemon(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]struct{ request, stdout string }{
		"commit box name:v1 -a me -m 'what it is'": {
			`POST /v1/vms/box/commit {"target":"name:v1","author":"me","message":"what it is"}`, "sha256:1\n"},
		"commit box name:v1 --format json": {`POST /v1/vms/box/commit {"target":"name:v1"}`, "{\"image\":{…"},
		"create -P x":                      {`POST /v1/vms?start=false {…"publish_all":true…`, "0123\n"},
		"create --net-deny any x": {
			`POST /v1/vms?start=false {…"policy":{"default":"allow","rules":[{"action":"deny","to":"any"}]}…`,
			"0123\n"},
		"create --nested x": {`POST /v1/vms?start=false {…"nested":"on"…`, "0123\n"},
		"image push x":      {`POST /v1/images/push {"reference":"x"}`, "sha256:1\n"},
		"image pull --platform a/b x": {`POST /v1/images/pull {"reference":"x","platform":"a/b"}`,
			"sha256:1\n"},
		"image register n --rootfs /f": {`POST /v1/images/register {"name":"n","rootfs":"/f"}`,
			"sha256:1\n"},
		"image promote n":     {`POST /v1/images/promote {"reference":"n"}`, "sha256:1\n"},
		"image ls -q --check": {`GET /v1/images?check=true`, "sha256:1\n"},
		"image prune -a --dry-run -q": {`POST /v1/images/prune {"all":true,"dry_run":true}`,
			"sha256:1\n"},
		"kernel pull":          {`POST /v1/kernels/pull`, "linux\n"},
		"kernel import --host": {`POST /v1/kernels/import {}`, "linux\n"},
		"kernel rm linux":      {`DELETE /v1/kernels/linux`, "linux\n"},
		"warm ls -q":           {`GET /v1/templates`, "7b8c5098a5b2\n"},
		"warm rm 7b":           {`DELETE /v1/templates/7b`, "7b\n"},
		"warm prune -q":        {`POST /v1/templates/prune?all=false&dry_run=false`, "7b8c5098a5b2\n"},
		"warm prune -a -q":     {`POST /v1/templates/prune?all=true&dry_run=false`, "7b8c5098a5b2\n"},
		"create --warm only x": {`POST /v1/vms?start=false {…"warm":"only"…`, "0123\n"},
		"create x":             {`POST /v1/vms?start=false {…"warm":"auto"…`, "0123\n"},
		"network create lab --subnet 172.30.7.0/24": {`POST /v1/networks {"name":"lab","subnet":"172.30.7.0/24"…`,
			"lab\n"},
		"network inspect lab": {`GET /v1/networks/lab`, "[\n  {\n    \"name\": \"lab\",…"},
		"network ls": {`GET /v1/networks`,
			"NAME   SUBNET   VMS SEE EACH OTHER   VMS\nlab             yes                  0\n"},
		"network rm lab":          {`DELETE /v1/networks/lab`, "lab\n"},
		"network connect lab box": {`PUT /v1/vms/box/network {"network":"lab"}`, ""},
		"stop -t 3 box":           {`POST /v1/vms/box/stop?grace=3`, "box\n"},
		"kill -s HUP box":         {`POST /v1/vms/box/kill?signal=1`, "box\n"},
		"rm -f box":               {`DELETE /v1/vms/box?force=true`, "box\n"},
		"policy log -n 2 box":     {`GET /v1/vms/box/denials?follow=false&tail=2`, "…"},
		"policy log -a box":       {`GET /v1/vms/box/decisions?follow=false`, "…"},
		"policy allow box *.a.b tcp:80,90-99 --for 1m30s": {`POST /v1/vms/box/policy/once ` +
			`{"rule":{"action":"allow","to":"*.a.b","protocol":"tcp","ports":["80","90-99"]},"seconds":90}`, ""},
	} {
		t.Run(line, func(t *testing.T) {
			got := ""
			a, stdout, stderr := falseDaemon(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = strings.TrimSpace(r.Method + " " + r.URL.String() + " " + string(body))
				answerAll(w, r)
			})
			code := a.run(t.Context(), words(line))
			if !matches(got, want.request) {
				t.Errorf("the request is %s,\nnot %s", got, want.request)
			}
			answer{stdout.String(), stderr.String(), code}.is(t, want.stdout, "", 0)
		})
	}
}

// matches reports whether text is the pattern, in which … stands for any text.
func matches(text, pattern string) bool {
	parts := strings.Split(pattern, "…")
	if len(parts) == 1 {
		return text == pattern
	}
	text, ok := strings.CutPrefix(text, parts[0])
	for _, part := range parts[1:] {
		_, rest, found := strings.Cut(text, part)
		text, ok = rest, ok && found
	}
	return ok
}

// answerAll answers every request with the noun that it is about.
func answerAll(w http.ResponseWriter, r *http.Request) {
	image, kernel := banger.Image{Digest: "sha256:1"}, banger.Kernel{Name: "linux"}
	network := banger.Network{Name: "lab"}
	vm := banger.VM{ID: "0123", Name: "box"}
	var answer any = vm
	switch path := r.URL.Path; {
	case r.Method == "DELETE":
		w.WriteHeader(http.StatusNoContent)
		return
	case path == "/v1/vms":
		answer = banger.Event{VM: &vm}
	case path == "/v1/images":
		answer = []banger.Image{image}
	case strings.HasSuffix(path, "/register"), strings.HasSuffix(path, "/promote"):
		answer = image
	case path == "/v1/images/prune":
		answer = banger.Pruned{Images: []string{image.Digest}}
	case strings.HasSuffix(path, "/commit"), strings.HasPrefix(path, "/v1/images/"):
		answer = banger.Event{Image: &image}
	case strings.HasPrefix(path, "/v1/kernels/"):
		answer = banger.Event{Kernel: &kernel}
	case strings.HasPrefix(path, "/v1/templates"):
		answer = []banger.Template{{ID: "7b8c5098a5b2", Size: 105 << 20}}
	case path == "/v1/networks" && r.Method == "GET":
		answer = []banger.Network{network}
	case strings.HasPrefix(path, "/v1/networks"):
		answer = network
	case strings.HasSuffix(path, "/denials"), strings.HasSuffix(path, "/decisions"):
		answer = banger.Decision{Protocol: "icmp", Address: "192.0.2.1", Rule: "deny any"}
	case strings.HasSuffix(path, "/policy/once"):
		w.WriteHeader(http.StatusNoContent)
		return
	}
	json.NewEncoder(w).Encode(answer)
}

// TestWhatComesAfterAnError checks streams that break, and answers of another program.
func TestWhatComesAfterAnError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		stderr string
	}{
		"an error in the middle": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"stage":"pull","text":"half"}`)
			io.WriteString(w, `{"error":{"code":"disk","message":"it broke","hint":"mend it"}}`)
		}, "pull: half\nbanger: it broke (mend it)\n"},
		"an end in the middle": {func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"stage":"pull","text":"half"}`)
		}, "pull: half\nbanger: the daemon went away: EOF (see: banger daemon status)\n"},
		"another version": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUpgradeRequired)
			io.WriteString(w, `{"error":{"code":"version","message":"the daemon speaks API 2"}}`)
		}, "banger: the daemon speaks API 2\n"},
		"no reason": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
			"banger: the daemon answered 500 Internal Server Error without a reason\n"},
	} {
		t.Run(name, func(t *testing.T) {
			a, stdout, stderr := falseDaemon(t, c.handle)
			code := a.run(t.Context(), []string{"image", "pull", "x"})
			answer{stdout.String(), stderr.String(), code}.is(t, "", c.stderr, 1)
		})
	}
}
