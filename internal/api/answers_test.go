package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/testing/hosttest"
)

// asked is one request and the status that its answer must have.
type asked struct {
	route  string // method and path as in openapi.json
	at     string // the values of the path and the query; "" if the path has no parameters
	body   any
	status int
}

// dialogue is one request for each route, in an order in which they can succeed on a host without root, registry and
// network. The others are refused, with an error that the document describes too.
func dialogue(h *hosttest.Host) []asked {
	spec := banger.Spec{Image: h.Image, Name: "box", Cmd: []string{"sleep", "100"}}
	rests := banger.Spec{Image: h.Image, Name: "rests", Env: []string{"A=secret"}}
	forward := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: 80}
	toHost := banger.Rule{Action: banger.Allow, To: banger.ToHost}
	session := banger.SessionSpec{Name: "cat", Command: banger.Exec{Args: []string{"cat"}, Stdin: true}}
	workspace := wire.WorkspaceRequest{ID: strings.Repeat("a", 32), Name: "w", Path: "/etc/passwd/w", Baseline: "one"}
	image := url.Values{"reference": {h.Image}}.Encode()
	tagged := url.Values{"reference": {"tagged"}}.Encode()
	return []asked{
		{"GET /openapi.json", "", nil, 200},
		{"GET /v1/version", "", nil, 200},
		{"GET /v1/doctor", "", nil, 200},
		{"GET /v1/log", "/v1/log?tail=1", nil, 200},
		{"GET /v1/log", "/v1/log?tail=few", nil, 400},
		{"POST /v1/vms", "/v1/vms?start=true", spec, 200},
		{"POST /v1/vms", "", rests, 200},
		{"GET /v1/vms", "/v1/vms?all=true&filter=name%3Dbox", nil, 200},
		{"GET /v1/vms/{vm}", "/v1/vms/rests?env=true", nil, 200},
		{"GET /v1/events", "/v1/events?follow=false", nil, 200},
		{"GET /v1/metrics", "/v1/metrics?follow=false&day=true", nil, 200},
		{"GET /v1/metrics", "/v1/metrics?follow=false&vm=nonesuch", nil, 404},
		{"GET /v1/metrics", "/v1/metrics?since=x", nil, 400},
		{"POST /v1/vms/{vm}/snapshots", "/v1/vms/rests/snapshots", map[string]string{"name": "one"}, 200},
		{"GET /v1/snapshots", "/v1/snapshots?vm=rests", nil, 200},
		{"GET /v1/usage", "/v1/usage?each=true", nil, 200},
		{"GET /v1/snapshots/{snapshot}", "/v1/snapshots/one", nil, 200},
		{"POST /v1/forks", "/v1/forks", banger.Fork{From: "one", Name: "forked"}, 200},
		{"POST /v1/vms/{vm}/keep", "/v1/vms/rests/keep", nil, 409},
		{"POST /v1/vms/{vm}/forks/prune", "/v1/vms/rests/forks/prune", nil, 200},
		{"POST /v1/vms/{vm}/restore", "/v1/vms/rests/restore", map[string]string{"name": "nonesuch"}, 404},
		{"DELETE /v1/snapshots/{snapshot}", "/v1/snapshots/one", nil, 204},
		{"POST /v1/vms/{vm}/exec", "/v1/vms/box/exec", banger.Exec{Args: []string{"true"}}, 101},
		{"POST /v1/vms/{vm}/attach", "/v1/vms/box/attach?rows=24&cols=80", nil, 101},
		{"POST /v1/vms/{vm}/files", "/v1/vms/box/files?op=archive&path=/proc/version&name=x", nil, 101},
		{"POST /v1/vms/{vm}/files", "/v1/vms/box/files?op=stat&path=/proc", nil, 200},
		{"POST /v1/vms/{vm}/ssh", "/v1/vms/box/ssh", banger.SSH{Keys: []string{"broken"}}, 400},
		{"GET /v1/vms/{vm}/files/content", "/v1/vms/box/files/content?path=/etc/hostname", nil, 200},
		{"GET /v1/vms/{vm}/files/content", "/v1/vms/box/files/content?path=/etc", nil, 200},
		{"GET /v1/vms/{vm}/files/content", "/v1/vms/box/files/content?path=/dev/null", nil, 400},
		{"GET /v1/vms/{vm}/logs", "/v1/vms/box/logs?tail=3", nil, 200},
		{"GET /v1/vms/{vm}/logs", "/v1/vms/box/logs?output=true", nil, 200},
		{"POST /v1/vms/{vm}/sessions", "/v1/vms/box/sessions", session, 200},
		{"GET /v1/vms/{vm}/sessions", "/v1/vms/box/sessions", nil, 200},
		{"GET /v1/vms/{vm}/session-events", "/v1/vms/box/session-events?follow=false", nil, 200},
		{"GET /v1/vms/{vm}/session-events", "/v1/vms/box/session-events?since=x", nil, 400},
		{"GET /v1/vms/{vm}/session-events", "/v1/vms/rests/session-events", nil, 409},
		{"GET /v1/vms/{vm}/sessions/{session}/ready", "/v1/vms/box/sessions/cat/ready?within=9", nil, 200},
		{"GET /v1/vms/{vm}/ready", "/v1/vms/box/ready", nil, 200},
		{"GET /v1/vms/{vm}/sessions/{session}", "/v1/vms/box/sessions/cat", nil, 200},
		{"GET /v1/vms/{vm}/sessions/{session}", "/v1/vms/box/sessions/NO", nil, 400},
		{"POST /v1/vms/{vm}/sessions/{session}/attach", "/v1/vms/box/sessions/cat/attach?position=0", nil, 101},
		{"POST /v1/vms/{vm}/sessions/{session}/signal", "/v1/vms/box/sessions/cat/signal?signal=18", nil, 200},
		{"POST /v1/vms/{vm}/sessions/{session}/send", "/v1/vms/box/sessions/cat/send?eof=true", strings.NewReader("x"), 200},
		{"GET /v1/vms/{vm}/sessions/{session}/wait", "/v1/vms/box/sessions/cat/wait", nil, 200},
		{"GET /v1/vms/{vm}/sessions/{session}/output", "/v1/vms/box/sessions/cat/output", nil, 200},
		{"POST /v1/vms/{vm}/sessions/{session}/stop", "/v1/vms/box/sessions/cat/stop?grace=1", nil, 200},
		{"DELETE /v1/vms/{vm}/sessions/{session}", "/v1/vms/box/sessions/cat", nil, 204},
		{"PUT /v1/vms/{vm}/secrets/{secret}", "/v1/vms/box/secrets/TOKEN", strings.NewReader("a value"), 204},
		{"PUT /v1/vms/{vm}/secrets/{secret}", "/v1/vms/box/secrets/a-b", strings.NewReader("a value"), 400},
		{"GET /v1/vms/{vm}/secrets", "/v1/vms/box/secrets", nil, 200},
		{"POST /v1/vms/{vm}/suspend", "/v1/vms/box/suspend", nil, 409},
		{"DELETE /v1/vms/{vm}/secrets/{secret}", "/v1/vms/box/secrets/TOKEN", nil, 204},
		{"DELETE /v1/vms/{vm}/secrets/{secret}", "/v1/vms/box/secrets/TOKEN", nil, 404},
		{"GET /v1/vms/{vm}/workspaces", "/v1/vms/box/workspaces", nil, 200},
		{"GET /v1/vms/{vm}/workspaces", "/v1/vms/rests/workspaces", nil, 200},
		{"POST /v1/vms/{vm}/workspaces", "/v1/vms/rests/workspaces", workspace, 409},
		{"POST /v1/vms/{vm}/workspaces/{workspace}/changes", "/v1/vms/rests/workspaces/w/changes", wire.ChangesRequest{},
			101},
		{"POST /v1/vms/{vm}/workspaces", "/v1/vms/box/workspaces", workspace, 101},
		{"POST /v1/vms/{vm}/workspaces", "/v1/vms/box/workspaces", wire.WorkspaceRequest{Name: "w"}, 400},
		{"POST /v1/vms/{vm}/workspaces/{workspace}/changes", "/v1/vms/box/workspaces/w/changes", wire.ChangesRequest{}, 101},
		{"POST /v1/vms/{vm}/workspaces/{workspace}/reset", "/v1/vms/box/workspaces/w/reset", nil, 404},
		{"POST /v1/vms/{vm}/workspaces/{workspace}/reset", "/v1/vms/box/workspaces/W/reset", nil, 400},
		{"PUT /v1/vms/{vm}/workspaces/{workspace}/baseline", "/v1/vms/box/workspaces/w/baseline",
			wire.BaselineRequest{Baseline: "two"}, 404},
		{"DELETE /v1/vms/{vm}/workspaces/{workspace}", "/v1/vms/box/workspaces/w?force=true", nil, 404},
		{"GET /v1/vms/{vm}/logs", "/v1/vms/box/logs?output=true&stamps=true&position=1&since=2026-11-29T18:30:00.5Z",
			nil, 200},
		{"GET /v1/vms/{vm}/logs", "/v1/vms/box/logs?since=2026-11-29T18:30:00Z", nil, 400},
		{"GET /v1/vms/{vm}/processes", "/v1/vms/box/processes", nil, 200},
		{"GET /v1/vms/{vm}/stats", "/v1/vms/box/stats", nil, 200},
		{"POST /v1/vms/{vm}/commit", "/v1/vms/rests/commit", map[string]string{"target": "mine"}, 409},
		{"GET /v1/vms/{vm}/ports", "/v1/vms/box/ports", nil, 200},
		{"POST /v1/vms/{vm}/forwards", "/v1/vms/rests/forwards", forward, 200},
		{"DELETE /v1/vms/{vm}/forwards", "/v1/vms/rests/forwards", forward, 204},
		{"PUT /v1/vms/{vm}/policy", "/v1/vms/rests/policy", banger.Policy{Default: banger.Deny}, 200},
		{"GET /v1/vms/{vm}/denials", "/v1/vms/box/denials?tail=all", nil, 200},
		{"GET /v1/vms/{vm}/decisions", "/v1/vms/box/decisions?tail=all", nil, 200},
		{"POST /v1/vms/{vm}/policy/once", "/v1/vms/box/policy/once", wire.OnceRequest{Rule: toHost}, 204},
		{"POST /v1/vms/{vm}/policy/once", "/v1/vms/rests/policy/once", wire.OnceRequest{Rule: toHost}, 409},
		{"PUT /v1/vms/{vm}/network", "/v1/vms/rests/network", map[string]string{"network": "user"}, 200},
		{"GET /v1/networks", "", nil, 200},
		{"POST /v1/networks", "", banger.Network{Name: "lab"}, 403},
		{"GET /v1/networks/{network}", "/v1/networks/lab", nil, 404},
		{"DELETE /v1/networks/{network}", "/v1/networks/lab", nil, 404},
		{"GET /v1/images", "", nil, 200},
		{"POST /v1/images/pull", "", map[string]string{"reference": h.Image}, 200},
		{"POST /v1/images/extend", "/v1/images/extend?base=none&target=mine:v1", nil, 404},
		{"POST /v1/images/push", "", map[string]string{"reference": "127.0.0.1:1/nonesuch"}, 404},
		{"POST /v1/images/register", "", map[string]string{"name": "own", "rootfs": "/nonexistent"}, 400},
		{"POST /v1/images/promote", "", map[string]string{"reference": h.Image}, 409},
		{"POST /v1/images/tag", "", map[string]string{"source": h.Image, "target": "tagged"}, 200},
		{"GET /v1/images/save", "/v1/images/save?" + image, nil, 200},
		{"POST /v1/images/load", "", strings.NewReader("not a tar"), 400},
		{"GET /v1/images/usage", "", nil, 200},
		{"GET /v1/image", "/v1/image?" + image, nil, 200},
		{"GET /v1/image/history", "/v1/image/history?" + image, nil, 200},
		{"DELETE /v1/image", "/v1/image?" + tagged, nil, 204},
		{"POST /v1/images/prune", "", map[string]bool{"dry_run": true}, 200},
		{"GET /v1/kernels", "", nil, 200},
		{"POST /v1/kernels/import", "", map[string]string{"name": "own", "image": "/nonexistent"}, 400},
		{"POST /v1/kernels/pull", "", nil, 200},
		{"GET /v1/kernels/{kernel}", "/v1/kernels/test", nil, 200},
		{"DELETE /v1/kernels/{kernel}", "/v1/kernels/nonesuch", nil, 404},
		{"GET /v1/templates", "", nil, 200},
		{"DELETE /v1/templates/{id}", "/v1/templates/0123", nil, 204},
		{"POST /v1/templates/prune", "/v1/templates/prune?all=true", nil, 200},
		{"PATCH /v1/vms/{vm}", "/v1/vms/box", map[string]any{"memory": 1 << 30,
			"idle": map[string]any{"seconds": 900, "action": "stop"}}, 200},
		{"POST /v1/diffs", "", banger.Comparison{To: "rests"}, 200},
		{"POST /v1/diffs", "", banger.Comparison{To: "nonesuch"}, 404},
		{"POST /v1/vms/{vm}/pause", "/v1/vms/box/pause", nil, 200},
		{"POST /v1/vms/{vm}/resume", "/v1/vms/box/resume", nil, 200},
		{"POST /v1/vms/{vm}/suspend", "/v1/vms/rests/suspend", nil, 409},
		{"POST /v1/vms/{vm}/rename", "/v1/vms/rests/rename", map[string]string{"name": "slept"}, 200},
		{"POST /v1/vms/{vm}/start", "/v1/vms/slept/start", nil, 200},
		{"POST /v1/vms/{vm}/restart", "/v1/vms/slept/restart?grace=1", nil, 200},
		{"POST /v1/vms/{vm}/kill", "/v1/vms/slept/kill?signal=9", nil, 200},
		{"GET /v1/vms/{vm}/wait", "/v1/vms/slept/wait", nil, 200},
		{"POST /v1/vms/prune", "", nil, 200},
		{"POST /v1/vms/{vm}/stop", "/v1/vms/box/stop?grace=1", nil, 200},
		{"DELETE /v1/vms/{vm}", "/v1/vms/box?force=true", nil, 204},
		{"POST /v1/ui", "", nil, 200},
		{"DELETE /v1/ui", "", nil, 204},
		{"POST /v1/shutdown", "", nil, 200},
	}
}

// TestRealAnswersAreWhatTheDocumentSays asks a daemon each route and validates what it answers.
func TestRealAnswersAreWhatTheDocumentSays(t *testing.T) {
	h := hosttest.New(t)
	socket := h.Serve()
	h.AddTemplate("0123456789ab")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial}}
	doc := document(t, client)
	left := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			left[method+" "+path] = true
		}
	}
	for _, a := range dialogue(h) {
		if testing.Short() && a.route == "POST /v1/kernels/pull" { // it fetches a package of Debian
			delete(left, a.route)
			continue
		}
		method, path, _ := strings.Cut(a.route, " ")
		operation := doc.Paths.Find(path).GetOperation(method)
		if operation == nil {
			t.Errorf("the document has no %s", a.route)
			continue
		}
		delete(left, a.route)
		validate(t, a, operation, answer(t, client, a))
	}
	for route := range left {
		t.Errorf("%s is not asked", route)
	}
}

// document returns the daemon's own document. Its objects have no properties but those that it names.
func document(t *testing.T, client *http.Client) *openapi3.T {
	t.Helper()
	resp, err := client.Get("http://banger/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Errorf("the document is not valid: %v", err)
	}
	for _, s := range doc.Components.Schemas {
		if len(s.Value.Properties) > 0 {
			s.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: new(bool)}
		}
	}
	return doc
}

// reply is what the daemon answers.
type reply struct {
	status int
	media  string
	body   []byte
}

func answer(t *testing.T, client *http.Client, a asked) reply {
	t.Helper()
	method, path, _ := strings.Cut(a.route, " ")
	if a.at != "" {
		path = a.at
	}
	body, raw := a.body.(io.Reader)
	if a.body != nil && !raw {
		text, err := json.Marshal(a.body)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://banger"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for verb, protocol := range map[string]string{"exec": "exec", "attach": "exec", "files": "files", "ssh": "ssh",
		"workspaces": "workspace"} {
		if strings.Contains(path, "/"+verb) && !strings.Contains(path, "op=stat") {
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "banger-"+protocol)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", a.route, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return reply{status: resp.StatusCode}
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", a.route, err)
	}
	return reply{resp.StatusCode, resp.Header.Get("Content-Type"), text}
}

// validate compares an answer with what the document says of the operation.
func validate(t *testing.T, a asked, operation *openapi3.Operation, r reply) {
	t.Helper()
	if r.status != a.status {
		t.Errorf("%s: status %d, not %d: %.300s", a.route, r.status, a.status, r.body)
		return
	}
	response := operation.Responses.Status(r.status)
	if response == nil && r.status >= 400 {
		response = operation.Responses.Default()
	}
	if response == nil {
		t.Errorf("%s: the document has no status %d", a.route, r.status)
		return
	}
	if len(response.Value.Content) == 0 {
		if len(r.body) > 0 {
			t.Errorf("%s: the document says that there is no body, and there is %.100q", a.route, r.body)
		}
		return
	}
	content := response.Value.Content.Get(r.media)
	if content == nil {
		t.Errorf("%s: the document has no answer of %q", a.route, r.media)
		return
	}
	if !strings.Contains(r.media, "json") {
		return
	}
	values := []string{string(r.body)}
	if r.media != "application/json" {
		values = strings.Split(strings.TrimSpace(string(r.body)), "\n")
	}
	for i, value := range values {
		if err := visit(content.Schema.Value, value); err != nil {
			t.Errorf("%s: value %d, %.200s: %v", a.route, i, value, err)
		}
	}
}

// visit validates one JSON value.
func visit(schema *openapi3.Schema, text string) error {
	if text == "" {
		return nil
	}
	var v any
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&v); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	return schema.VisitJSON(v)
}
