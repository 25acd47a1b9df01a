package local_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/host"
	"banger/internal/local"
)

// TestPresetsAreThoseOfTheUsersFile asks for what new machines get, with several files.
func TestPresetsAreThoseOfTheUsersFile(t *testing.T) {
	for name, c := range map[string]struct {
		file string // "" for no file
		want string // a part of the answer
	}{
		"no file": {"", `"cpus":"","memory":"","disk":"","network":"","warm":"","idle":"","policy":""`},
		"sizes":   {"cpus = 2\nmemory = \"2g\"\nidle = \"15m\"\n", `"cpus":"2","memory":"2g"`},
		"a policy": {
			"[policy]\nallow = [\"*.debian.org tcp:443\"]\n",
			`"policy":"allow *.debian.org tcp:443\ndefault deny\n"`,
		},
		"a broken file": {"cpus = 2\ncolour = \"red\"\n", `config.toml:2`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.toml")
			if c.file != "" {
				if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := local.Local{Paths: host.Paths{Config: path}}
			w := httptest.NewRecorder()
			l.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/ui/local/presets", nil))
			if got := w.Body.String(); !strings.Contains(got, c.want) {
				t.Errorf("the answer is %d %s, without %s", w.Code, got, c.want)
			}
		})
	}
}
