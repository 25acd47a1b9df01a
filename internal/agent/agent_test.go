package agent

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/guest"
	"banger/internal/mux"
)

// patience bounds every wait in these tests; none comes near it unless it fails. In an
// emulated guest two hundred commands take longer: there BANGER_TEST_PATIENCE is "5m".
var patience = 30 * time.Second

var agentBinary string

func TestMain(m *testing.M) {
	if longer := os.Getenv("BANGER_TEST_PATIENCE"); longer != "" {
		var err error
		if patience, err = time.ParseDuration(longer); err != nil {
			panic("BANGER_TEST_PATIENCE: " + err.Error())
		}
	}
	if os.Getenv(reaperProcess) != "" || os.Getenv(inGuest) != "" {
		os.Exit(m.Run())
	}
	if parts := os.Getenv("BANGER_TEST_PARTS"); parts != "" { // where there is no Go tool: one made elsewhere
		agentBinary = filepath.Join(parts, "banger-agent")
		if _, err := os.Stat(agentBinary); err != nil {
			panic("BANGER_TEST_PARTS is to hold banger-agent: " + err.Error())
		}
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "banger-agent")
	if err != nil {
		panic(err)
	}
	agentBinary = filepath.Join(dir, "banger-agent")
	if out, err := exec.Command("go", "build", "-o", agentBinary, "banger/cmd/banger-agent").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// testAgent is an agent in serve mode, a real child process, and its client.
type testAgent struct {
	guest.Client
	mux     *mux.Mux
	pid     int
	console *os.File      // what the agent prints
	ended   chan struct{} // closed when the agent is gone
	status  error         // how it went
}

func startAgent(t testing.TB) *testAgent {
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
	cmd := exec.Command(agentBinary, "serve")
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{theirs}, console, console
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	a := &testAgent{pid: cmd.Process.Pid, console: console, ended: make(chan struct{})}
	go func() { a.status = cmd.Wait(); close(a.ended) }()
	a.mux, err = mux.Connect(withPatience(t), host)
	if err != nil {
		t.Fatal(err)
	}
	a.Dial = func(ctx context.Context) (net.Conn, error) { return a.mux.Dial(ctx, guest.AgentPort) }
	t.Cleanup(func() {
		a.mux.Close()
		within(t, "the agent goes with its channel", a.ended)
		console.Close()
	})
	return a
}

func withPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("this does not happen: %s", what)
	}
	return v
}

// running is a command and its stream.
type running struct {
	t      testing.TB
	conn   net.Conn
	frames *banger.FrameReader
}

// result is all that a command's stream said.
type result struct {
	started        bool
	stdout, stderr []byte
	exit           banger.Exit
	err            *banger.Error
}

func (a *testAgent) exec(t testing.TB, e banger.Exec) *running {
	t.Helper()
	conn, err := a.Exec(withPatience(t), e)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return &running{t, conn, banger.NewFrameReader(conn)}
}

func (r *running) send(typ banger.FrameType, p []byte) error {
	return banger.WriteFrame(r.conn, typ, p)
}

// feed gives a command its whole stdin; it may be that nobody takes it.
func (r *running) feed(stdin []byte) *running {
	go func() {
		for len(stdin) > 0 {
			n := min(len(stdin), banger.MaxData)
			if r.send(banger.FrameStdin, stdin[:n]) != nil {
				return
			}
			stdin = stdin[n:]
		}
		r.send(banger.FrameStdinEOF, nil)
	}()
	return r
}

// until reads output up to and including text; "" stops at the start.
func (r *running) until(text string) (out string) {
	r.t.Helper()
	for {
		typ, p, err := r.frames.Next()
		if err != nil || typ == banger.FrameExit || typ == banger.FrameError {
			r.t.Fatalf("after %q came frame %d %q instead of %q: %v", out, typ, p, text, err)
		}
		out += string(p)
		if strings.Contains(out, text) {
			return out
		}
	}
}

// finish reads the stream to its last frame.
func (r *running) finish() (res result) {
	r.t.Helper()
	for {
		typ, p, err := r.frames.Next()
		if err != nil {
			r.t.Errorf("the stream ended without a last frame: %v", err)
			return res
		}
		switch typ {
		case banger.FrameStarted:
			res.started = true
		case banger.FrameStdout:
			res.stdout = append(res.stdout, p...)
		case banger.FrameStderr:
			res.stderr = append(res.stderr, p...)
		case banger.FrameExit:
			if err := json.Unmarshal(p, &res.exit); err != nil {
				r.t.Error(err)
			}
			return res
		case banger.FrameError:
			res.err = new(banger.Error)
			if err := json.Unmarshal(p, res.err); err != nil {
				r.t.Error(err)
			}
			return res
		}
	}
}

func shell(script string, args ...string) banger.Exec {
	return banger.Exec{Args: append([]string{"sh", "-c", script, "sh"}, args...)}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// fifoEnd tells when the processes that have it open for writing are gone.
type fifoEnd struct {
	path string
	end  chan []byte // what was written, once all writers are gone
}

func fifo(t testing.TB) *fifoEnd {
	f := &fifoEnd{filepath.Join(t.TempDir(), "fifo"), make(chan []byte, 1)}
	if err := unix.Mkfifo(f.path, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		file, err := os.Open(f.path)
		if err == nil {
			data, _ := io.ReadAll(file)
			file.Close()
			f.end <- data
		}
	}()
	return f
}

func (f *fifoEnd) awaitEnd(t testing.TB) string {
	t.Helper()
	return string(within(t, "the command ends", f.end))
}
