package agent

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

func TestExitCodes(t *testing.T) {
	a := agenttest.Start(t)
	for script, want := range map[string]banger.Exit{
		"exit 0": {}, "exit 7": {Code: 7}, "exit 126": {Code: 126}, "exit 127": {Code: 127}, "exit 255": {Code: 255},
		"kill -9 $$": {Signal: 9}, "kill -TERM $$": {Signal: 15},
	} {
		if res := a.Run(t, agenttest.Shell(script)).Finish(); !res.Started || res.Exit != want || res.Err != nil {
			t.Errorf("%q ended with %+v", script, res)
		}
	}
}

// TestCannotStart checks that the error of a command that cannot start has a code for the exit
// status: 127 for an absent command, 126 for one that cannot run.
func TestCannotStart(t *testing.T) {
	a := agenttest.Start(t)
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	plain := file("plain", "text", 0o644)
	for _, tt := range []struct {
		name, message string
		e             banger.Exec
		code          banger.Code
	}{
		{"absent from PATH", `no command "no-such"`, banger.Exec{Args: []string{"no-such"}}, banger.CodeCommandAbsent},
		{"absent path", "no command", banger.Exec{Args: []string{"/no/such"}}, banger.CodeCommandAbsent},
		{"below a file", "no command", banger.Exec{Args: []string{plain + "/x"}}, banger.CodeCommandAbsent},
		{"no interpreter", "interpreter is missing", banger.Exec{Args: []string{file("script", "#!/no/such\n", 0o755)}},
			banger.CodeCommandAbsent},
		{"not executable", "permission denied", banger.Exec{Args: []string{plain}}, banger.CodeCannotRun},
		{"not executable in PATH", "permission denied",
			banger.Exec{Args: []string{"plain"}, Env: []string{"PATH=" + dir}}, banger.CodeCannotRun},
		{"a directory", "permission denied", banger.Exec{Args: []string{dir}}, banger.CodeCannotRun},
		{"no program", "exec format error", banger.Exec{Args: []string{file("bad", "\x7fELFjunk", 0o755)}},
			banger.CodeCannotRun},
		{"a directory of no use", "is not a directory", banger.Exec{Args: []string{"true"}, Dir: plain + "/x"},
			banger.CodeCannotRun},
		{"unknown user", `no user "nosuchuser"`, banger.Exec{Args: []string{"true"}, User: "nosuchuser"},
			banger.CodeCannotRun},
		{"unknown group", `no group "nosuchgroup"`, banger.Exec{Args: []string{"true"}, User: "0:nosuchgroup"},
			banger.CodeCannotRun},
		{"no command", "no command given", banger.Exec{}, banger.CodeInvalid},
		{"a NUL byte", "NUL", banger.Exec{Args: []string{"a\x00b"}}, banger.CodeInvalid},
	} {
		res := a.Run(t, tt.e).Finish()
		if res.Started || res.Err == nil || res.Err.Code != tt.code || !strings.Contains(res.Err.Message, tt.message) {
			t.Errorf("%s: got %+v", tt.name, res.Err)
		}
	}
}

// TestOutput checks that both outputs arrive complete, separate and byte for byte.
func TestOutput(t *testing.T) {
	a := agenttest.Start(t)
	dir := t.TempDir()
	one, two := agenttest.Noise(1<<20), agenttest.Noise(1<<20+1)
	os.WriteFile(dir+"/one", one, 0o644)
	os.WriteFile(dir+"/two", two, 0o644)
	res := a.Run(t, agenttest.Shell("cat $1/one & cat $1/two >&2; wait", dir)).Finish()
	if !bytes.Equal(res.Stdout, one) || !bytes.Equal(res.Stderr, two) {
		t.Errorf("got %d bytes of %d and %d of %d, or not the same", len(res.Stdout), len(one), len(res.Stderr), len(two))
	}
}

// TestSlowReader checks that a client that reads late gets all output. The command has ended when
// its marker is closed, and its output is far larger than the stream's buffers.
func TestSlowReader(t *testing.T) {
	processtest.Long(t)
	for _, tty := range []bool{false, true} {
		t.Run(fmt.Sprintf("tty %v", tty), func(t *testing.T) {
			a := agenttest.Start(t)
			f := agenttest.NewFifo(t)
			size := 300_000 // in the stream's window, the agent's hands and the pipe
			if tty {
				size = 256<<10 + 6_000 // a terminal holds little
			}
			e := agenttest.Shell("exec 9>$1; stty -opost 2>/dev/null; head -c $2 /dev/zero", f.Path, fmt.Sprint(size))
			e.TTY = tty
			r := a.Run(t, e)
			f.AwaitEnd(t)
			time.Sleep(command.DrainTime + command.DrainTime/2) // there is no event for "the agent gave up"
			if res := r.Finish(); len(res.Stdout) != size || res.Exit != (banger.Exit{}) {
				t.Errorf("got %d bytes of %d, %+v", len(res.Stdout), size, res.Exit)
			}
		})
	}
}

func TestStdin(t *testing.T) {
	a := agenttest.Start(t)
	big := agenttest.Noise(3 << 20)
	sum := sha256.Sum256(big)
	for _, tt := range []struct {
		name, script string
		stdin        []byte
		want         string
	}{
		{"copied back", "cat", big, string(big)},
		{"read to its end before the answer", "sha256sum", big, fmt.Sprintf("%x  -\n", sum)},
		{"empty", "cat; echo end", []byte{}, "end\n"},
		{"not read at all", "echo done", big, "done\n"},
		{"read a little", "head -c 3; echo done", []byte(strings.Repeat("abc", 1<<20)), "abcdone\n"},
		{"closed by the command, which works on", "exec <&-; echo closed; sleep 0.2; echo done", big, "closed\ndone\n"},
		{"not given", "cat; readlink /proc/self/fd/0", nil, "/dev/null\n"},
	} {
		e := agenttest.Shell(tt.script)
		e.Stdin = tt.stdin != nil
		r := a.Run(t, e)
		if e.Stdin {
			r.Feed(tt.stdin)
		}
		if res := r.Finish(); string(res.Stdout) != tt.want || res.Exit != (banger.Exit{}) {
			t.Errorf("stdin %s: got %d bytes %.30q, %+v", tt.name, len(res.Stdout), res.Stdout, res.Exit)
		}
	}
}

// TestManyCommands checks that hundreds of commands run at once, each with its own data in both
// directions.
func TestManyCommands(t *testing.T) {
	a := agenttest.Start(t)
	const n = 200
	var wg, allStarted sync.WaitGroup
	allStarted.Add(n)
	for i := range n {
		e := agenttest.Shell(`cat; echo "$1" >&2; exit $(($1 % 200))`, fmt.Sprint(i))
		e.Stdin = true
		r := a.Run(t, e)
		wg.Go(func() {
			typ, _, err := r.Frames.Next()
			allStarted.Done()
			if typ != frame.Started || err != nil {
				t.Errorf("command %d: frame %d, %v", i, typ, err)
				return
			}
			allStarted.Wait()
			data := agenttest.Noise(1000 + i*100)
			res := r.Feed(data).Finish()
			if !bytes.Equal(res.Stdout, data) || string(res.Stderr) != fmt.Sprintln(i) || res.Exit.Code != i%200 {
				t.Errorf("command %d: %d bytes, %q, %+v", i, len(res.Stdout), res.Stderr, res.Exit)
			}
		})
	}
	wg.Wait()
}

// TestImproperRequests checks that an invalid request gets an answer that says so, or a reset.
func TestImproperRequests(t *testing.T) {
	a := agenttest.Start(t)
	for _, tt := range []struct {
		name    string
		code    banger.Code
		message string
		typ     frame.Type
		payload string
	}{
		{"not a request", "", "not a request", frame.Stdin, "{}"},
		{"no JSON", "", "not a request", frame.Request, "{"},
		{"no operation", "", `names no operation`, frame.Request, "{}"},
		{"unknown operation", banger.CodeVersion, `no operation "dance"`, frame.Request, `{"op":"dance"}`},
		{"exec of nothing", "", "no command", frame.Request, `{"op":"exec"}`},
		{"start of nothing", "", "no command", frame.Request, `{"op":"start"}`},
		{"configure with nothing", "", "without a configuration", frame.Request, `{"op":"configure"}`},
	} {
		conn, err := a.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r := agenttest.NewRunning(t, conn)
		r.Send(tt.typ, []byte(tt.payload))
		if res := r.Finish(); res.Err == nil || res.Err.Code != cmp.Or(tt.code, banger.CodeInvalid) ||
			!strings.Contains(res.Err.Message, tt.message) {
			t.Errorf("%s: got %+v", tt.name, res.Err)
		}
		conn.Close()
	}
	conn, err := a.Mux.Dial(t.Context(), 99)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("port 99 answers with %v", err)
	}
	if info, err := a.Ping(processtest.WithPatience(t)); err != nil || info.Version != guest.Version || info.Kernel == "" {
		t.Errorf("after all that, the agent says %+v, %v", info, err)
	}
}
