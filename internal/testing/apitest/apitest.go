// Package apitest has a false daemon, with which tests of the API's clients choose everything that a guest, an image or
// a registry says.
//
// It must not know the CLI nor anything behind the API. Only tests import it.
package apitest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"banger/internal/api/wire"
)

// Serve runs a daemon that answers all requests with handle, except those for its version. It returns the daemon's
// socket. The daemon ends with the test.
func Serve(t *testing.T, handle http.HandlerFunc) (socket string) {
	t.Helper()
	return ServeVersion(t, wire.Version{}, handle)
}

// ServeVersion is Serve for a daemon that reports v.
func ServeVersion(t *testing.T, v wire.Version, handle http.HandlerFunc) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // shorter than t.TempDir: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/version" {
			json.NewEncoder(w).Encode(v)
			return
		}
		handle(w, r)
	})}
	go server.Serve(ln) // ends with Close
	t.Cleanup(func() { server.Close() })
	return ln.Addr().String()
}

// Upgrade takes over the connection of a request, as the daemon does for streams of a guest.
func Upgrade(w http.ResponseWriter, r *http.Request) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		r.Header.Get("Upgrade"))
	return conn
}
