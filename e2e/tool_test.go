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
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/bundle"
	"banger/internal/testing/toolserver"
)

// npmRegistry returns the registry that npm is set up for, or "" for its preset.
var npmRegistry = sync.OnceValue(func() string {
	if url := os.Getenv("npm_config_registry"); url != "" {
		return url
	}
	out, _ := exec.Command("npm", "config", "get", "registry").Output()
	return strings.TrimSpace(string(out))
})

// toolserver serves Node.js in place of nodejs.org. It sets $TOOLS to its port on the host's loopback and $NODE to the
// version that it has.
func cmdToolServer(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 0, "toolserver")
	dir := ts.MkAbs("toolserver")
	registry := "npm_config_registry=" + npmRegistry()
	store := bundle.Store{Dir: filepath.Join(os.Getenv("TMPDIR"), "programs"), NPM: bundle.NPMOf([]string{registry}, "")}
	version, err := toolserver.Node(context.Background(), store, dir)
	ts.Check(err)
	ts.Setenv("NODE", version)
	if url := npmRegistry(); url != "" { // the home of a story has no file of npm's
		ts.Setenv("npm_config_registry", url)
	}
	serve(ts, http.FileServer(http.Dir(dir)))
}

func serve(ts *testscript.TestScript, handler http.Handler) {
	s := httptest.NewServer(handler)
	ts.Defer(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	ts.Setenv("TOOLS", port)
}
