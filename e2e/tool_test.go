package e2e

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/bundle"
	"banger/internal/testing/toolserver"
)

// npmRegistry returns the registry that npm is set up for, or "" for its preset. The home of a story has no file that
// says so.
func npmRegistry() string {
	if url := os.Getenv("npm_config_registry"); url != "" {
		return url
	}
	out, _ := exec.Command("npm", "config", "get", "registry").Output()
	return strings.TrimSpace(string(out))
}

// toolserver node|go plays the servers from which a tool is installed. It sets $TOOLS to its port on the host's
// loopback, and $NODE or $GO to the version that it has.
func cmdToolServer(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 1, "toolserver node|go")
	switch args[0] {
	case "node":
		serveNode(ts, ts.MkAbs("toolserver"))
	case "go":
		serveGo(ts, ts.MkAbs("toolserver"))
	default:
		ts.Fatalf("no server for %q", args[0])
	}
}

func serveNode(ts *testscript.TestScript, dir string) {
	store := bundle.Store{Dir: filepath.Join(os.Getenv("TMPDIR"), "programs"), NPM: bundle.NPMOf(os.Environ(), "")}
	version, err := toolserver.Node(context.Background(), store, dir)
	ts.Check(err)
	ts.Setenv("NODE", version)
	serve(ts, http.FileServer(http.Dir(dir)))
}

// serveGo serves this host's Go below /go, and the modules that it has fetched below /modules. An emulated guest
// would compile the standard library for minutes, so that comes compiled with the Go.
func serveGo(ts *testscript.TestScript, dir string) {
	cache := ts.MkAbs("cache")
	goHere := func(args ...string) []string {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Stderr = repository, os.Stderr
		cmd.Env = append(os.Environ(), "GOCACHE="+cache, "GOFLAGS=", "CGO_ENABLED=0")
		out, err := cmd.Output()
		ts.Check(err)
		return strings.Fields(string(out))
	}
	env := goHere("env", "GOROOT", "GOVERSION", "GOMODCACHE")
	version := strings.TrimPrefix(env[1], "go")
	standard := goHere(append([]string{"list", "-deps", "-test", "-f", "{{if .Standard}}{{.ImportPath}}{{end}}"},
		strings.Fields(ts.Getenv("PACKAGES"))...)...)
	goHere(append([]string{"build"}, standard...)...)
	ts.Check(toolserver.Go(env[0], cache, version, filepath.Join(dir, "go")))
	ts.Setenv("GO", version)
	mux := http.NewServeMux()
	mux.Handle("/go/", http.FileServer(http.Dir(dir)))
	modules := http.FileServer(http.Dir(filepath.Join(env[2], "cache", "download")))
	mux.Handle("/modules/", http.StripPrefix("/modules", modules))
	serve(ts, mux)
}

func serve(ts *testscript.TestScript, handler http.Handler) {
	s := httptest.NewServer(handler)
	ts.Defer(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	ts.Setenv("TOOLS", port)
}
