package work

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/config"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// TestACommandLineIsCheckedFirst checks the lines that are refused before the daemon is asked anything.
func TestACommandLineIsCheckedFirst(t *testing.T) {
	t.Chdir(t.TempDir())
	for line, want := range map[string]string{
		"nonesuch":                "there is no directory nonesuch",
		"debian-bookworm -- true": "there is no directory debian-bookworm",
		". --":                    "a command is missing behind --",
		"--fork 2 .":              "--fork needs a number and a command behind --",
		"--fork -1 . -- true":     "--fork needs a number and a command behind --",
		". an-image more":         "write: work [flags] [PATH] [IMAGE] [-- COMMAND...]",
		"--detach-keys nil . ":    "detach keys",
	} {
		t.Run(line, func(t *testing.T) {
			a := &command.App{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)}
			a.Reach(host.Paths{State: t.TempDir(), Run: filepath.Join(t.TempDir(), "nobody-is-here")})
			c := New(a)
			c.SilenceErrors, c.SilenceUsage = true, true
			c.SetArgs(strings.Fields(line))
			err := c.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("it says %v, want %q", err, want)
			}
		})
	}
}

func TestANameBecomesALabel(t *testing.T) {
	for name, want := range map[string]string{"project": "project", "My_Project v2": "my-project-v2", "--a--b--": "a-b",
		"feature/Größe": "feature-gr-e", "日本": "", "": "", ".git": "git"} {
		if got := label(name); got != want {
			t.Errorf("label(%q) is %q, want %q", name, got, want)
		}
	}
}

// withVMs returns a client of a daemon that has these VMs.
func withVMs(t *testing.T, vms ...banger.VM) *client.Client {
	t.Helper()
	return client.New(apitest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/vms" {
			t.Errorf("the daemon is asked for %s", r.URL.Path)
		}
		json.NewEncoder(w).Encode(vms)
	}))
}

func TestANewVMIsNamedAfterItsRepository(t *testing.T) {
	c := withVMs(t, banger.VM{Name: "taken"}, banger.VM{Name: "taken-2"})
	long := strings.Repeat("a", 80)
	for _, test := range []struct{ source, branch, agent, want string }{
		{"/src/project", "main", "", "project"},
		{"/src/project", "master", "", "project"},
		{"/src/project", "", "", "project"}, // a directory without a repository
		{"/src/project", "feature/one", "", "project-feature-one"},
		{"/src/project", "topic", "codex", "project-topic-codex"},
		{"/src/taken", "main", "", "taken-3"},
		{"/src/日本", "main", "", "work"},
		{"/src/日本", "topic", "", "topic"},
		{"/", "", "", "work"},
		{"/src/" + long, "topic", "", long[:50]},
	} {
		got, err := freeName(t.Context(), c, home{source: test.source, branch: test.branch}, test.agent)
		if err != nil || got != test.want {
			t.Errorf("%s at %q for %q is named %q (%v), want %q", test.source, test.branch, test.agent, got, err, test.want)
		}
	}
}

func TestATimeIsWrittenShortly(t *testing.T) {
	for d, want := range map[time.Duration]string{15 * time.Minute: "15m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		45 * time.Second: "45s", 10 * time.Second: "10s", time.Minute + time.Second: "1m1s", 10 * time.Hour: "10h",
		time.Hour + 10*time.Second: "1h0m10s", 20 * time.Minute: "20m"} {
		if got := shortly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestTheBudget checks which VMs count, and for how much.
func TestTheBudget(t *testing.T) {
	vm := func(name string, s banger.State) banger.VM {
		return banger.VM{Name: name, State: s, Spec: banger.Spec{Memory: 1 << 30}}
	}
	c := withVMs(t, vm("one", banger.StateRunning), vm("two", banger.StatePaused), vm("three", banger.StateStarting),
		vm("at-rest", banger.StateSuspended), vm("off", banger.StateStopped))
	for _, test := range []struct {
		budget config.Budget
		more   int
		want   string // "" if there is room
	}{
		{config.Budget{}, 100, ""},
		{config.Budget{Running: 4}, 1, ""},
		{config.Budget{Running: 4}, 2, "the budget in config.toml has room for 4 VMs, and with 2 more there would be 5"},
		{config.Budget{Running: 3}, 1, "has room for 3 VMs, and with 1 more there would be 4"},
		{config.Budget{Memory: "4g"}, 1, ""},
		{config.Budget{Memory: "4g"}, 2, "the VMs that run have 3 GiB of memory, and with 2 GiB more the budget"},
		{config.Budget{Running: 9, Memory: "3g"}, 1, "park one of them: banger suspend one or two or three"},
	} {
		err := withinBudget(t.Context(), c, test.budget, test.more, 1<<30)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v and %d more: %v, want %q", test.budget, test.more, err, test.want)
		}
	}
}

func TestArgumentsComeBehindATasksOwn(t *testing.T) {
	for _, test := range []struct{ task, more, want []string }{
		{[]string{"make"}, nil, []string{"make"}},
		{[]string{"make", "-j2"}, []string{"a b"}, []string{"make", "-j2", "a b"}},
		{[]string{"sh", "-c", "make"}, nil, []string{"sh", "-c", "make"}},
		{[]string{"sh", "-c", "make"}, []string{"x", "$y"}, []string{"sh", "-c", `make "$@"`, "sh", "x", "$y"}},
	} {
		if got := withArguments(test.task, test.more); !equal(got, test.want) {
			t.Errorf("%q with %q is %q, want %q", test.task, test.more, got, test.want)
		}
	}
}

func equal(a, b []string) bool { return strings.Join(a, "\x00") == strings.Join(b, "\x00") }

func TestADirectoryOfATaskIsInTheWorkspace(t *testing.T) {
	for dir, want := range map[string]banger.Exec{"": {Workspace: true}, ".": {Workspace: true},
		"sub": {Dir: "/workspace/sub"}, "a/b": {Dir: "/workspace/a/b"}} {
		if got := inWorkspace(banger.Exec{Dir: dir}); got.Dir != want.Dir || got.Workspace != want.Workspace {
			t.Errorf("%q is %+v, want %+v", dir, got, want)
		}
	}
}

// TestOnlyFlagsOfAVMAreForANewOne checks which flags are refused where a VM is there already.
func TestOnlyFlagsOfAVMAreForANewOne(t *testing.T) {
	c := New(&command.App{})
	if err := c.ParseFlags(strings.Fields("--new --name x --rm -e A=b --fork 2 --memory 1g --network none")); err != nil {
		t.Fatal(err)
	}
	if got := Changed(c.Flags(), "fork"); !equal(got, []string{"memory", "network", "rm"}) {
		t.Errorf("they are %q", got)
	}
}

func TestAVMSaysNoMoreThanItMay(t *testing.T) {
	var out bytes.Buffer
	l := &Limited{W: &out, Left: 5}
	if n, err := l.Write([]byte("12345")); n != 5 || err != nil {
		t.Errorf("5 bytes: %d, %v", n, err)
	}
	if _, err := l.Write([]byte("6")); err == nil || out.String() != "12345" {
		t.Errorf("a sixth: %v, %q", err, out.String())
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(text), mode)
	}
	if err == nil {
		err = os.Chmod(name, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}
