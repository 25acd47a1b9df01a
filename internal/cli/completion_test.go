package cli

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/cli/command"
	"banger/internal/cli/completion"
	"banger/internal/host"
)

// offers returns what is offered at the end of a line, whose last word is being typed, and the directive to the shell.
// Like a shell it takes only words that begin as the one that is typed.
func offers(t *testing.T, handle http.HandlerFunc, text string) (list []string, directive string) {
	t.Helper()
	line := strings.Split(text, " ")
	typed := line[len(line)-1]
	if strings.HasPrefix(typed, "--") {
		_, typed, _ = strings.Cut(typed, "=")
	}
	a, stdout, _ := falseDaemon(t, handle)
	a.run(t.Context(), append([]string{"__complete"}, line...))
	answer, directive, ok := strings.Cut("\n"+stdout.String(), "\n:")
	if !ok {
		t.Fatalf("%q completes to %q", line, stdout)
	}
	for offered := range strings.Lines(strings.TrimPrefix(answer, "\n")) {
		word, _, _ := strings.Cut(strings.TrimSpace(offered), "\t")
		if strings.HasPrefix(word, typed) {
			list = append(list, word)
		}
	}
	return list, strings.TrimSpace(directive)
}

// hostOfNames answers as a daemon that has one thing of each kind, and VMs in two states.
func hostOfNames(w http.ResponseWriter, r *http.Request) {
	answers := map[string]string{
		"/v1/vms": `[{"id":"0123","name":"box","state":"running"},{"id":"4567","name":"idle","state":"stopped"}]`,
		"/v1/vms/box": `{"name":"box","state":"running",` +
			`"forwards":[{"host_ip":"127.0.0.1","host_port":8080,"guest_port":80,"protocol":"tcp"}]}`,
		"/v1/images":   `[{"reference":"docker.io/library/nginx:latest"},{"digest":"sha256:0"}]`,
		"/v1/networks": `[{"name":"lab"}]`,
		"/v1/kernels":  `[{"name":"debian-6.1"}]`,

		"/v1/vms/idle": `{"name":"idle","state":"stopped"}`,

		"/v1/vms/box/sessions": `[{"name":"build","state":"running"},{"name":"shell","state":"ended"}]`,

		"/v1/vms/box/secrets": `[{"name":"KEY"},{"name":"TOKEN"}]`,

		"/v1/templates": `[{"id":"7b8c5098a5b2"},{"id":"0123456789ab"}]`,
	}
	if text, ok := answers[r.URL.Path]; ok {
		w.Write([]byte(text))
		return
	}
	answerAll(w, r)
}

// TestCompletion checks what is offered at each kind of place: names of all kinds, and values of flags.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"start ":                "idle",
		"stop ":                 "box",
		"kill ":                 "box",
		"exec ":                 "box",
		"stats ":                "box",
		"ports ":                "box",
		"rm ":                   "box idle",
		"rm box ":               "idle",
		"vm rm ":                "box idle",
		"inspect ":              "box debian-6.1 docker.io/library/nginx:latest idle lab",
		"logs ":                 "box idle",
		"rename box ":           "",
		"wait ":                 "box idle",
		"ssh ":                  "box",
		"ssh root@":             "root@box",
		"exec box ":             "", // what the guest has
		"session attach box ":   "build shell",
		"session rm box shell ": "build",
		"secret rm box TOKEN ":  "KEY",
		"secret set box ":       "KEY TOKEN",
		"port rm ":              "box idle",
		"port rm box ":          "127.0.0.1:8080:80/tcp",
		"port add box ":         "",
		"policy set idle ":      "allow deny",
		"ssh-config print ":     "box idle",
		"network rm ":           "lab",
		"network connect ":      "bridge lab none user",
		"network connect l ":    "idle",
		"rmi ":                  "docker.io/library/nginx:latest",
		"image inspect ":        "docker.io/library/nginx:latest",
		"tag nginx ":            "docker.io/library/nginx:latest",
		"run ":                  "debian-bookworm debian-bookworm-dev debian-bookworm-lab docker.io/library/nginx:latest",
		"run nginx ":            "",
		"kernel rm ":            "debian-6.1",
		"warm rm ":              "0123456789ab 7b8c5098a5b2",
		"warm rm 7":             "7b8c5098a5b2",
		"cp bo":                 "box:",
		"help image l":          "load ls",
		"image l":               "load ls",

		"logs --session ":          "build shell",
		"logs idle --session ":     "",
		"logs idle box --session ": "build shell",
		"vm logs box --session=b":  "build",

		"run --kernel ":           "debian-6.1",
		"run --network ":          "bridge lab none user",
		"create --network ":       "bridge lab none user",
		"run --pull ":             "missing always never",
		"run --warm ":             "auto never only booted",
		"create --warm=o":         "only",
		"run --vmm ":              "auto qemu firecracker",
		"run --init=":             "auto agent image",
		"run --nested=":           "on force",
		"run --platform linux/am": "linux/amd64",
		"run --cap-drop NET_RA":   "NET_RAW",
		"run --ulimit nofil":      "nofile=",
		"run --stop-signal TER":   "TERM",
		"kill -s HU":              "HUP",
		"run --security-opt ":     "no-new-privileges seccomp=unconfined apparmor=unconfined label=disable",
		"ps --format ":            "table json",
		"events --format ":        "table json",
		"daemon run --log-level ": "debug info warn error",
		"ps --filter ":            "name= id= state= status= image= label=",
		"ps --filter name=":       "name=box name=idle",
		"ps --filter state=":      "state=created state=running state=paused state=suspended state=stopped state=failed state=unreachable",
		"ps --filter label=":      "",
		"run --env PAT":           "PATH",
		"run --name ":             "",
	} {
		got, _ := offers(t, hostOfNames, line)
		if strings.Join(got, " ") != want {
			t.Errorf("%q offers %q, not %q", line, got, want)
		}
	}
}

// TestCompletionOfRegistries checks that login and logout offer those at which the user has logged in.
func TestCompletionOfRegistries(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("HOME", dir)
	logins := []byte(`{"auths":{"one.test":{},"two.test:5000":{}}}`)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), logins, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{"login ": "one.test two.test:5000", "logout tw": "two.test:5000"} {
		if got, _ := offers(t, hostOfNames, line); strings.Join(got, " ") != want {
			t.Errorf("%q offers %q", line, got)
		}
	}
}

// TestCompletionOfACopy checks that cp offers VMs and files of this host.
func TestCompletionOfACopy(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"boxes.txt", "notes", ".hidden", "a:b"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("bo", 0o700); err != nil {
		t.Fatal(err)
	}
	const noFiles, noSpace, byShell = 4, 2, 0
	for word, want := range map[string]string{
		"":          fmt.Sprint("box: bo/ boxes.txt notes :", noFiles+noSpace),
		"bo":        fmt.Sprint("box: bo/ boxes.txt :", noFiles+noSpace),
		"no":        fmt.Sprint(":", byShell),
		"/et":       fmt.Sprint(":", byShell),
		"./a":       fmt.Sprint(":", byShell),
		"box:/etc/": fmt.Sprint(":", noFiles),
	} {
		for _, before := range []string{"cp ", "cp -a box:/x "} {
			got, directive := offers(t, hostOfNames, before+word)
			if said := strings.Join(append(got, ":"+directive), " "); said != want {
				t.Errorf("%q offers %q, not %q", before+word, said, want)
			}
		}
	}
	if got, directive := offers(t, hostOfNames, "cp a b "); len(got) > 0 || directive != fmt.Sprint(noFiles) {
		t.Errorf("a third argument is offered: %q %s", got, directive)
	}
}

// TestCompletionStartsNoDaemonAndDoesNotWait asks where no daemon runs, where it fails and where it never answers.
func TestCompletionStartsNoDaemonAndDoesNotWait(t *testing.T) {
	t.Parallel()
	fails := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, handle := range map[string]http.HandlerFunc{"no daemon": nil, "fails": fails, "silent": silent} {
		a, stdout, _ := falseDaemon(t, handle)
		state := t.TempDir()
		if handle == nil {
			a.App = &command.App{Stdin: a.Stdin, Stdout: stdout, Stderr: a.Stderr}
			a.Reach(host.Paths{State: state, Run: filepath.Join(state, "run")})
		}
		for line, want := range map[string]string{"exec ": ":4\n", "network rm ": ":4\n",
			"run ": "debian-bookworm\ndebian-bookworm-dev\ndebian-bookworm-lab\n:4\n"} {
			stdout.Reset()
			began := time.Now()
			a.run(t.Context(), append([]string{"__complete"}, strings.Split(line, " ")...))
			if stdout.String() != want {
				t.Errorf("%s: %q offers %q", name, line, stdout)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s: %q takes %s", name, line, took)
			}
		}
		if left, _ := os.ReadDir(state); len(left) > 0 {
			t.Errorf("%s: there is %v", name, left)
		}
	}
}

// TestEveryArgumentAndFlagIsDecided checks that each argument, and each flag with a value, is completed or has a reason
// why it is not.
func TestEveryArgumentAndFlagIsDecided(t *testing.T) {
	t.Parallel()
	a, _, _ := falseDaemon(t, hostOfNames)
	for _, place := range completion.Undecided(newRoot(a)) {
		t.Errorf("%s: say in completion/table.go what completes it, or why nothing does", place)
	}
}
