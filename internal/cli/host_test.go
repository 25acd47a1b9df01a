package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/cli/command"
	"banger/internal/host"
	"banger/internal/testing/hosttest"
)

// asCLI is the variable with which this test's program runs as banger.
const asCLI = "BANGER_TEST_CLI"

// TestMain also runs the CLI in a process of its own, for commands that replace the process.
func TestMain(m *testing.M) {
	if os.Getenv(asCLI) != "" {
		os.Exit(Main(os.Args[1:], Processes{}))
	}
	os.Exit(hosttest.Main(m))
}

// process runs a command line in a process of its own, with more variables.
func (h *cliHost) process(env []string, args ...string) answer {
	h.T.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asCLI+"=1", "BANGER_STATE_DIR="+h.Path("state"), "BANGER_RUN_DIR="+h.Path("run"))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		h.T.Fatal(err)
	}
	return answer{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// cliHost is a host whose daemon runs in this process, and on which a test types commands.
type cliHost struct {
	*hosttest.Host
}

func newCLIHost(t *testing.T) *cliHost {
	t.Helper()
	h := &cliHost{hosttest.New(t)}
	h.Serve()
	return h
}

// answer is what a command has printed, and its exit code.
type answer struct {
	stdout, stderr string
	code           int
}

// app returns a CLI of the host, whose stdin is empty.
func (h *cliHost) app() (a *app, stdout, stderr *bytes.Buffer) {
	h.T.Helper()
	null, err := os.Open(os.DevNull)
	hosttest.Check(h.T, err)
	h.T.Cleanup(func() { null.Close() })
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	a = &app{App: &command.App{Stdin: null, Stdout: stdout, Stderr: stderr}}
	a.Reach(host.Paths{State: h.Path("state"), Run: h.Path("run")})
	return a, stdout, stderr
}

// banger runs a command line.
func (h *cliHost) banger(args ...string) answer {
	h.T.Helper()
	a, stdout, stderr := h.app()
	code := a.run(h.T.Context(), args)
	return answer{stdout.String(), stderr.String(), code}
}

// with runs a command line with text on stdin.
func (h *cliHost) with(stdin string, args ...string) answer {
	h.T.Helper()
	a, stdout, stderr := h.app()
	r, w, err := os.Pipe()
	hosttest.Check(h.T, err)
	defer r.Close()
	go func() { // ends when all is read, or with r
		io.WriteString(w, stdin)
		w.Close()
	}()
	a.Stdin = r
	code := a.run(h.T.Context(), args)
	return answer{stdout.String(), stderr.String(), code}
}

// must runs a command line that succeeds and prints no error, and returns its stdout without the last line end.
func (h *cliHost) must(args ...string) string {
	h.T.Helper()
	got := h.banger(args...)
	if got.code != 0 || strings.Contains(got.stderr, "banger:") {
		h.T.Fatalf("banger %q ends with %d: %s%s", args, got.code, got.stdout, got.stderr)
	}
	return strings.TrimSuffix(got.stdout, "\n")
}

// box makes a VM that runs and waits for commands.
func (h *cliHost) box(name string, flags ...string) (id string) {
	h.T.Helper()
	args := append([]string{"run", "-q", "-d", "--name", name}, flags...)
	return h.must(append(args, h.Image, "--", "sleep", "1000")...)
}

// write makes a file with text and returns its path.
func (h *cliHost) write(name, text string) string {
	h.T.Helper()
	path := filepath.Join(h.T.TempDir(), name)
	hosttest.Check(h.T, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// is checks an answer. A want that ends with "…" must be the beginning of what was printed.
func (got answer) is(t *testing.T, stdout, stderr string, code int) {
	t.Helper()
	same := func(got, want string) bool {
		start, cut := strings.CutSuffix(want, "…")
		return got == want || cut && strings.HasPrefix(got, start)
	}
	if !same(got.stdout, stdout) || !same(got.stderr, stderr) || got.code != code {
		t.Errorf("it prints %q and %q and ends with %d,\nnot %q, %q, %d", got.stdout, got.stderr, got.code,
			stdout, stderr, code)
	}
}
