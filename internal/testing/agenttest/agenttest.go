// Package agenttest runs the real agent as a child process for the tests of the
// agent's packages, and is the host's side of its channel. It builds the agent
// from its command, so it must not import those packages.
package agenttest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
	"banger/internal/mux"
	"banger/internal/testing/processtest"
)

var binary string

// Main runs the tests of a package that calls Start: it builds the agent, and
// removes it afterwards. It is for TestMain, and does not return.
//
// Where there is no Go tool, the directory BANGER_TEST_PARTS holds an agent that
// was built elsewhere.
func Main(m *testing.M) {
	if parts := os.Getenv("BANGER_TEST_PARTS"); parts != "" {
		binary = filepath.Join(parts, "banger-agent")
		if _, err := os.Stat(binary); err != nil {
			panic("BANGER_TEST_PARTS is to hold banger-agent: " + err.Error())
		}
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "banger-agent")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "banger-agent")
	build := exec.Command("go", "build", "-o", binary, "banger/cmd/banger-agent")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// Agent is an agent in serve mode, a real child process, and its client.
type Agent struct {
	guest.Client
	Mux     *mux.Mux      // of the channel to the agent
	PID     int           // of the agent
	Console string        // is the file of what the agent prints
	Ended   chan struct{} // is closed when the agent has ended
	Status  error         // is how the agent ended, once Ended is closed
}

// Start starts an agent, which ends with the test.
func Start(t testing.TB) *Agent {
	t.Helper()
	return StartProgram(t, binary)
}

// StartProgram starts the agent of a file, which ends with the test.
func StartProgram(t testing.TB, program string) *Agent {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	host, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	console, err := os.CreateTemp(t.TempDir(), "console")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve")
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{theirs}, console, console
	cmd.Env = append(os.Environ(), "BANGER_TEST_DISK="+t.TempDir(), "BANGER_TEST_SECRETS="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	a := &Agent{PID: cmd.Process.Pid, Console: console.Name(), Ended: make(chan struct{})}
	go func() { a.Status = cmd.Wait(); close(a.Ended) }()
	a.Mux, err = mux.Connect(processtest.WithPatience(t), host)
	if err != nil {
		t.Fatal(err)
	}
	a.Dial = func(ctx context.Context) (net.Conn, error) { return a.Mux.Dial(ctx, guest.AgentPort) }
	t.Cleanup(func() {
		a.Mux.Close()
		Within(t, "the agent goes with its channel", a.Ended)
		console.Close()
	})
	return a
}
