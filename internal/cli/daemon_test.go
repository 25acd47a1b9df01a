package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/host"
	"banger/internal/testing/hosttest"
)

// without returns a CLI without a daemon.
func without(t *testing.T) (a *app, stdout *strings.Builder, state string) {
	t.Helper()
	stdout, state = new(strings.Builder), t.TempDir()
	a = &app{App: &command.App{Stdin: os.Stdin, Stdout: stdout, Stderr: stdout}}
	a.Reach(host.Paths{State: state, Run: state})
	return a, stdout, state
}

func TestDaemonStatus(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.check(line{args: "daemon status",
		stdout: fmt.Sprintf("running: pid %d, version %s, since …", os.Getpid(), banger.Version)})
	a, stdout, state := without(t)
	if code := a.run(t.Context(), []string{"daemon", "status"}); code != 1 ||
		stdout.String() != "no daemon runs (socket "+state+"/api.sock)\n" {
		t.Errorf("without a daemon it ends with %d and says %s", code, stdout)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.check(
		line{args: "version",
			stdout: "client: " + banger.Version + " (API 1)\ndaemon: " + banger.Version + " (API 1)\n"},
		line{args: "version --format yaml", code: 2,
			stderr: "banger: --format is \"yaml\", but must be table, json or a template such as '{{.name}}'\n"},
	)
	var v struct{ Daemon *wire.Version }
	hosttest.Check(t, json.Unmarshal([]byte(h.must("version", "--format", "json")), &v))
	if v.Daemon == nil || v.Daemon.PID != os.Getpid() {
		t.Errorf("the JSON is %+v", v)
	}
	a, stdout, _ := without(t)
	if code := a.run(t.Context(), []string{"version"}); code != 0 ||
		stdout.String() != "client: "+banger.Version+" (API 1)\ndaemon: not running\n" {
		t.Errorf("without a daemon it ends with %d and says %s", code, stdout)
	}
}

// TestDaemonStop checks that stop returns when the daemon's process has ended, and that it is no error if none runs.
func TestDaemonStop(t *testing.T) {
	t.Parallel()
	daemon := exec.Command("sleep", "1000")
	hosttest.Check(t, daemon.Start())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	v := wire.Version{PID: daemon.Process.Pid}
	a, stdout, stderr := falseDaemonOf(t, v, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/shutdown" {
			daemon.Process.Kill()
		}
		io.WriteString(w, "{}")
	})
	code := a.run(t.Context(), []string{"daemon", "stop"})
	answer{stdout.String(), stderr.String(), code}.is(t, "", "", 0)
	<-ended
	b, said, _ := without(t)
	if code := b.run(t.Context(), []string{"daemon", "stop"}); code != 0 || said.String() != "" {
		t.Errorf("without a daemon it ends with %d and says %s", code, said)
	}
}

// TestOtherProcesses checks what the other programs of this binary are started with.
func TestOtherProcesses(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"daemon run":         "daemon state",
		"recover":            "recover state\nreport",
		"shim /dir":          "shim /dir",
		"vmm-exec /dir x -y": "vmm /dir [x -y]",
	} {
		a, stdout, state := without(t)
		got := ""
		a.procs = Processes{
			Daemon: func(_ context.Context, o DaemonOptions) error {
				got = "daemon " + o.StateDir
				o.Ready()
				return nil
			},
			Recover: func(_ context.Context, o DaemonOptions, w io.Writer) error {
				got = "recover " + o.StateDir
				io.WriteString(w, "report")
				return nil
			},
			Shim: func(_ context.Context, dir string) error { got = "shim " + dir; return nil },
			VMM:  func(dir string, argv []string) error { got = fmt.Sprint("vmm ", dir, " ", argv); return nil },
		}
		code := a.run(t.Context(), strings.Fields(line))
		want, said, _ := strings.Cut(want, "\n")
		if want = strings.Replace(want, "state", state, 1); got != want || stdout.String() != said || code != 0 {
			t.Errorf("%s does %q, says %q and ends with %d", line, got, stdout, code)
		}
	}
}

// TestADaemonThatFails checks what the client that started it reads.
func TestADaemonThatFails(t *testing.T) {
	t.Parallel()
	a, stdout, _ := without(t)
	a.procs.Daemon = func(context.Context, DaemonOptions) error { return errors.New("the disk is full") }
	r, w, err := os.Pipe()
	hosttest.Check(t, err)
	fd, err := duplicate(w)
	hosttest.Check(t, err)
	w.Close()
	code := a.run(t.Context(), []string{"daemon", "run", fmt.Sprintf("--ready-fd=%d", fd)})
	told, err := io.ReadAll(r)
	const want = "the disk is full\n"
	if code != 1 || string(told) != want || err != nil || stdout.String() != "banger: "+want {
		t.Errorf("it ends with %d, says %s, and tells its client %q, %v", code, stdout, told, err)
	}
}

func TestDaemonLogs(t *testing.T) {
	t.Parallel()
	a, stdout, state := without(t)
	hosttest.Check(t, os.WriteFile(state+"/daemon.log", []byte("one\ntwo\n"), 0o600))
	if code := a.run(t.Context(), []string{"daemon", "logs", "-n", "1"}); code != 0 || stdout.String() != "two\n" {
		t.Errorf("it ends with %d and says %s", code, stdout)
	}
	stdout.Reset()
	if code := a.run(t.Context(), []string{"daemon", "logs", "-n", "x"}); code != 2 {
		t.Errorf("it ends with %d and says %s", code, stdout)
	}
	stdout.Reset()
	if code := a.run(t.Context(), []string{"daemon", "run", "--log-level", "loud"}); code != 2 {
		t.Errorf("it ends with %d and says %s", code, stdout)
	}
}

// TestDoctor checks the lines that come from the daemon, and the exit code.
func TestDoctor(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	var checks []wire.Check
	got := h.banger("doctor", "--format", "json")
	hosttest.Check(t, json.Unmarshal([]byte(got.stdout), &checks))
	failed, seen := false, map[string]string{}
	for _, c := range checks {
		failed = failed || c.Result == wire.Fail
		seen[c.Name] = c.Result
	}
	if seen["daemon"] != wire.Pass || seen["kernel"] != wire.Pass || (got.code == 1) != failed {
		t.Errorf("it ends with %d and says %+v", got.code, checks)
	}
	if text := h.banger("doctor"); !strings.Contains(text.stdout, "PASS  kernel     test\n") || text.code != got.code {
		t.Errorf("it ends with %d and says %s", text.code, text.stdout)
	}
	h.check(line{args: "doctor --format yaml", code: 2,
		stderr: "banger: --format is \"yaml\", but must be table, json or a template such as '{{.name}}'\n"})
}

// TestPsSaysThatVersionsDiffer checks the line about a daemon of another version, and that the list is asked for once.
func TestPsSaysThatVersionsDiffer(t *testing.T) {
	t.Parallel()
	warning := "banger: the daemon is version 0.0.1, but this client is " + banger.Version +
		" (restart it: banger daemon stop; VMs go on running, and the next command starts a new one)\n"
	for _, c := range []struct{ args, version, want string }{
		{"ps", "0.0.1", warning},
		{"ps -a --format json", "0.0.1", warning},
		{"vm ls", "0.0.1", warning},
		{"ps -q", "0.0.1", ""},
		{"ps", banger.Version, ""},
		{"ps", "0.0.1\x1b[31m", strings.Replace(warning, "0.0.1", `0.0.1\x1b[31m`, 1)},
	} {
		asked := 0
		a, stdout, stderr := falseDaemonOf(t, wire.Version{Version: c.version},
			func(w http.ResponseWriter, _ *http.Request) { asked++; w.Write([]byte("[]")) })
		code := a.run(t.Context(), strings.Fields(c.args))
		if code != 0 || stderr.String() != c.want || strings.Contains(stdout.String(), "version") {
			t.Errorf("%s ends with %d and says %q", c.args, code, stderr)
		}
		if asked != 1 {
			t.Errorf("%s asks %d times", c.args, asked)
		}
	}
}

// TestDNS checks what changes nothing on this host.
func TestDNS(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	got := h.banger("dns", "status")
	if got.code != 1 || !strings.HasPrefix(got.stdout, "server:    127.0.0.1:1") ||
		!strings.Contains(got.stdout, "answers:   no: ") || !strings.Contains(got.stdout, "not found by this host") {
		t.Errorf("it is %+v", got)
	}
	h.check(
		line{args: "dns install --server x", code: 1,
			stderr: "banger: \"x\" is not a loopback address with a port (see: banger dns status)\n"},
		line{args: "dns install --server 192.0.2.1:53", code: 1,
			stderr: "banger: \"192.0.2.1:53\" is not a loopback address …"},
	)
	a, _, stderr := falseDaemonOf(t, wire.Version{DNSProblem: "the port is taken"}, nil)
	if code := a.run(t.Context(), []string{"dns", "status"}); code != 1 || stderr.String() !=
		"banger: the daemon answers no names: the port is taken (restart it: banger daemon stop)\n" {
		t.Errorf("it ends with %d and says %s", code, stderr)
	}
}
