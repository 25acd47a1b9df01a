package source

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWhereAnEngineListens checks that sockets are searched where the clients of docker and podman
// search, in the same order.
func TestWhereAnEngineListens(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"docker.sock", "podman/podman.sock"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		scheme string
		env    map[string]string
		want   string // "": an error
	}{
		"docker's variable": {schemeDockerDaemon, map[string]string{
			"DOCKER_HOST":     "unix:///x.sock",
			"XDG_RUNTIME_DIR": dir,
		}, "/x.sock"},
		"podman's variable": {schemePodman, map[string]string{"CONTAINER_HOST": "unix:///y.sock"}, "/y.sock"},
		"the user's docker": {schemeDockerDaemon, map[string]string{"XDG_RUNTIME_DIR": dir}, dir + "/docker.sock"},
		"the user's podman": {schemePodman, map[string]string{"XDG_RUNTIME_DIR": dir}, dir + "/podman/podman.sock"},
		"over the network":  {schemeDockerDaemon, map[string]string{"DOCKER_HOST": "tcp://host:2375"}, ""},
		"by ssh":            {schemePodman, map[string]string{"CONTAINER_HOST": "ssh://host"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := engineSocket(c.scheme, func(k string) string { return c.env[k] })
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v, not %q", got, err, c.want)
			}
		})
	}
}
