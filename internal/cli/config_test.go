package cli

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/config"
	"banger/internal/testing/hosttest"
)

// withConfig runs a command line of a user who has a configuration, and returns the answer and the last request.
func withConfig(t *testing.T, text, line string) (answer, string) {
	t.Helper()
	request := ""
	a, stdout, stderr := falseDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		request = strings.TrimSpace(r.Method + " " + r.URL.String() + " " + string(body))
		answerAll(w, r)
	})
	a.Paths.Config = filepath.Join(t.TempDir(), "config.toml")
	hosttest.Check(t, os.WriteFile(a.Paths.Config, []byte(text), 0o600))
	code := a.run(t.Context(), words(line))
	return answer{stdout.String(), stderr.String(), code}, request
}

// TestTheConfigurationCountsWhereNoFlagSaysIt checks the request that a command line becomes.
func TestTheConfigurationCountsWhereNoFlagSaysIt(t *testing.T) {
	t.Parallel()
	const sizes = "cpus = 2\nmemory = \"1g\"\ndisk = \"20g\"\nidle = \"15m\"\nwarm = \"never\"\n"
	const policy = "[policy]\ndefault = \"deny\"\nallow = [\"a.example\"]\n"
	const idle = `"idle":{"seconds":900,"action":"suspend"}`
	for _, c := range []struct{ text, line, want string }{
		{sizes, "create x", `…"cpus":2,"memory":1073741824,"disk":21474836480,"warm":"never"…` + idle + `…`},
		{sizes, "create --cpus 1 -m 512m --disk 10g --warm auto --idle 5m=stop x",
			`…"cpus":1,"memory":536870912,"disk":10737418240,"warm":"auto"…"idle":{"seconds":300,"action":"stop"}…`},
		{"cpus = 0.5", "run -d x", `…"cpus":1…"cpu":500…`},
		{"network = \"none\"", "create x", `…"network":"none"…`},
		{"network = \"none\"\n" + policy, "create x", `…"network":"none"…`},
		{"network = \"none\"", "create --network user x", `…"network":"user"…`},
		{policy, "create x", `…"policy":{"default":"deny","rules":[{"action":"allow","to":"a.example"}]}…`},
		{policy, "create --net-allow b.example x",
			`…[{"action":"allow","to":"b.example"},{"action":"allow","to":"a.example"}]…`},
		{policy, "create --net-policy allow x", `…"policy":{"default":"allow"}…`},
		{policy, "create --untrusted --net-allow b.example x",
			`…"policy":{"default":"deny","rules":[{"action":"allow","to":"b.example"}]}…`},
		{"image = \"y\"", "create x", `POST /v1/vms?start=false {"image":"x"…`},
	} {
		got, request := withConfig(t, c.text, c.line)
		if got.code != 0 || !matches(request, c.want) {
			t.Errorf("%s with %q: the request is %s (%s), not %s", c.line, c.text, request, got.stderr, c.want)
		}
		if strings.Contains(c.line, "--untrusted") && strings.Contains(request, "a.example") {
			t.Errorf("an untrusted VM may reach what the configuration says: %s", request)
		}
	}
}

// TestABrokenConfigurationStopsOnlyWhatNeedsIt checks that no request is made, and that other commands work.
func TestABrokenConfigurationStopsOnlyWhatNeedsIt(t *testing.T) {
	t.Parallel()
	const text = "\ncpu = 2"
	for _, line := range []string{"run x", "create x"} {
		got, request := withConfig(t, text, line)
		if got.code == 0 || request != "" ||
			!strings.Contains(got.stderr, `config.toml:2: the key "cpu" is unknown (did you mean "cpus"?)`) {
			t.Errorf("%s ends with %d: %s%s", line, got.code, got.stderr, request)
		}
	}
	for _, line := range []string{"version", "image ls", "rm box", "run --help"} {
		if got, _ := withConfig(t, text, line); got.code != 0 {
			t.Errorf("%s ends with %d: %s", line, got.code, got.stderr)
		}
	}
}

// TestWhatIsBuiltInIsWhatFlagsSay compares the defaults of flags.
func TestWhatIsBuiltInIsWhatFlagsSay(t *testing.T) {
	t.Parallel()
	a, _, _ := falseDaemon(t, nil)
	flags := newRun(a).Flags()
	m := config.Merge(config.BuiltIn(), config.User{}, nil)
	for flag, want := range map[string]string{
		"cpus": string(m.CPUs), "memory": string(m.Memory), "disk": string(m.Disk), "network": m.Network, "warm": m.Warm,
	} {
		if got := flags.Lookup(flag).DefValue; got != want {
			t.Errorf("--%s is %s, but %s is built in", flag, got, want)
		}
	}
}
