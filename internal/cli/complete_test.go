package cli

import (
	"net/http"
	"strings"
	"testing"

	"banger/internal/cli/command"
	"banger/internal/host"
)

// TestCompletion checks every command that completes a word. The daemon has the VM "box" and the network "lab".
func TestCompletion(t *testing.T) {
	t.Parallel()
	lines := map[string]string{
		"network inspect":  "lab",
		"network rm":       "lab",
		"network connect":  "lab",
		"image inspect":    "",
		"image rm":         "",
		"create":           "",
		"vm exec":          "box",
		"port ls":          "box",
		"port add":         "box",
		"port rm":          "box",
		"policy show":      "box",
		"policy set":       "box",
		"policy log":       "box",
		"ssh-config print": "box",
	}
	const verbs = "start stop restart kill rm inspect exec ssh logs stats rename ports port commit wait"
	for _, verb := range strings.Fields(verbs) {
		lines[verb] = "box"
	}
	for line, want := range lines {
		a, stdout, _ := falseDaemon(t, hostOfOne)
		a.run(t.Context(), append(append([]string{"__complete"}, strings.Fields(line)...), ""))
		offered, _, _ := strings.Cut(stdout.String(), ":")
		got := strings.Fields(offered)
		if want == "" && len(got) > 0 || want != "" && !contains(got, want) {
			t.Errorf("%s offers %q, not %q", line, got, want)
		}
	}
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

// hostOfOne answers as a daemon with one VM and one network.
func hostOfOne(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/vms" {
		w.Write([]byte(`[{"id":"0123","name":"box"}]`))
		return
	}
	answerAll(w, r)
}

// TestCompletionWithoutADaemon checks that completion neither starts a daemon nor offers anything.
func TestCompletionWithoutADaemon(t *testing.T) {
	t.Parallel()
	broken := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	for _, handle := range []http.HandlerFunc{nil, broken} {
		a, stdout, _ := falseDaemon(t, handle)
		if handle == nil {
			a.App = &command.App{Stdin: a.Stdin, Stdout: stdout, Stderr: a.Stderr}
			a.Reach(host.Paths{State: t.TempDir(), Run: t.TempDir()})
		}
		for _, line := range []string{"__complete exec", "__complete network rm"} {
			stdout.Reset()
			a.run(t.Context(), append(strings.Fields(line), ""))
			if got := stdout.String(); got != ":4\n" {
				t.Errorf("it offers %q", got)
			}
		}
	}
}
