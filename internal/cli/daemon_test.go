package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/api"
)

// falseDaemon returns an app whose daemon answers with handle. A test can thereby choose everything that a guest, an
// image or a registry says.
func falseDaemon(t *testing.T, handle http.HandlerFunc) (a *app, stdout, stderr *bytes.Buffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli") // shorter than t.TempDir: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/version" {
			json.NewEncoder(w).Encode(api.Version{})
			return
		}
		handle(w, r)
	})}
	go server.Serve(ln) // ends with Close
	t.Cleanup(func() { server.Close() })
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	a = &app{stdin: os.Stdin, stdout: stdout, stderr: stderr, client: api.NewClient(ln.Addr().String())}
	return a, stdout, stderr
}

// upgraded takes over the connection of a request, as the daemon does for streams of a guest.
func upgraded(w http.ResponseWriter, r *http.Request) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		r.Header.Get("Upgrade"))
	return conn
}
