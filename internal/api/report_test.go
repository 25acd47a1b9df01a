package api_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/testing/hosttest"
)

// open asks a daemon for a stream, and returns its lines. Header fields alone are an answer.
func open(t *testing.T, socket, path string) *bufio.Reader {
	t.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://banger"+path, nil)
	hosttest.Check(t, err)
	resp, err := (&http.Client{Transport: &http.Transport{DialContext: dial}}).Do(req)
	hosttest.Check(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the status is %s", resp.Status)
	}
	return bufio.NewReader(resp.Body)
}

// TestAClientThatComesBackIsConnectedAtOnce opens the stream of changes when nothing has changed.
func TestAClientThatComesBackIsConnectedAtOnce(t *testing.T) {
	h := hosttest.New(t)
	socket := h.Serve()
	c, cursor := client.New(socket), ""
	hosttest.Check(t, c.Events(t.Context(), "", false, func(change banger.Change) { cursor = change.Cursor }))
	lines := open(t, socket, "/v1/events?since="+cursor) // it returns although no line comes
	_, err := c.Create(t.Context(), banger.Spec{Image: h.Image, Name: "box"}, nil, false, banger.Discard)
	hosttest.Check(t, err)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"name":"box"`) {
		t.Errorf("the first change is %q, %v", line, err)
	}
}

// TestTheLogIsFollowed reads the last line of the daemon's log, and one that comes later.
func TestTheLogIsFollowed(t *testing.T) {
	h := hosttest.New(t)
	lines := open(t, h.Serve(), "/v1/log?tail=1&follow=true")
	next := func() string {
		line, err := lines.ReadString('\n')
		hosttest.Check(t, err)
		return line
	}
	if got := next(); got != "two\n" {
		t.Errorf("it begins with %q", got)
	}
	f, err := os.OpenFile(h.Path("daemon.log"), os.O_WRONLY|os.O_APPEND, 0)
	hosttest.Check(t, err)
	defer f.Close()
	_, err = f.WriteString("three\n")
	hosttest.Check(t, err)
	if got := next(); got != "three\n" {
		t.Errorf("it goes on with %q", got)
	}
}
