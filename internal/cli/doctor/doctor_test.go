package doctor

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/api/client"
	"banger/internal/api/wire"
	"banger/internal/cli/connect"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// TestADaemonOfAnotherVersionIsAWarning, since only the client knows that they differ.
func TestADaemonOfAnotherVersionIsAWarning(t *testing.T) {
	socket := apitest.ServeVersion(t, wire.Version{Version: "0.0.1"}, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte("[]"))
	})
	paths := host.Paths{State: t.TempDir(), Run: filepath.Dir(socket)}
	found := ""
	for _, c := range Diagnose(t.Context(), connect.New(paths, client.New(socket)), paths.State) {
		if c.Name == "daemon" {
			found = c.Result + " " + c.Detail
		}
	}
	if !strings.HasPrefix(found, "WARN version 0.0.1, but") {
		t.Errorf("it says %q", found)
	}
}
