package cli

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// falseDaemon returns an app whose daemon answers with handle. A test can thereby choose everything that a guest, an
// image or a registry says.
func falseDaemon(t *testing.T, handle http.HandlerFunc) (a *app, stdout, stderr *bytes.Buffer) {
	t.Helper()
	return falseDaemonOf(t, wire.Version{}, handle)
}

// falseDaemonOf is falseDaemon with a daemon that reports v.
func falseDaemonOf(t *testing.T, v wire.Version, handle http.HandlerFunc) (a *app, stdout, stderr *bytes.Buffer) {
	t.Helper()
	dir := filepath.Dir(apitest.ServeVersion(t, v, handle))
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	a = &app{App: &command.App{Stdin: os.Stdin, Stdout: stdout, Stderr: stderr}}
	a.Reach(host.Paths{State: dir, Run: dir})
	return a, stdout, stderr
}

// duplicate returns another descriptor of a file, which the caller owns.
func duplicate(f *os.File) (int, error) { return syscall.Dup(int(f.Fd())) }
