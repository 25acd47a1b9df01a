package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
)

// TestAptGetsTheProxiesOfTheRequest checks that apt runs with these, and with none of this process's own.
func TestAptGetsTheProxiesOfTheRequest(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "apt-get"), []byte("#!/bin/sh\nenv\n"), 0o700))
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	t.Setenv("http_proxy", "http://own:1")
	t.Setenv("ALL_PROXY", "http://own:1")
	ctx := banger.WithRegistryAccess(t.Context(), banger.RegistryAccess{HTTPProxy: "http://theirs:1"})
	out, err := (&apt{dir: dir}).run(ctx, dir, "apt-get", "update")
	check(t, err)
	env := strings.Split(out, "\n")
	if !slices.Contains(env, "http_proxy=http://theirs:1") || strings.Contains(out, "own:1") {
		t.Errorf("its environment is %s", out)
	}
}

// TestAnErrorOfAptIsItsLastLine checks that no word of Go is in it.
func TestAnErrorOfAptIsItsLastLine(t *testing.T) {
	dir := t.TempDir()
	program := "#!/bin/sh\necho E: first >&2\necho E: last >&2\nexit 100\n"
	check(t, os.WriteFile(filepath.Join(dir, "apt-get"), []byte(program), 0o700))
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	_, err := (&apt{dir: dir}).run(t.Context(), dir, "apt-get", "update")
	if err == nil || err.Error() != "apt-get fails: E: last" {
		t.Errorf("the error is %v", err)
	}
}
