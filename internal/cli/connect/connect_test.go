package connect

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/api/wire"
	"banger/internal/host"
	"banger/internal/private"
	"banger/internal/testing/apitest"
)

// behaviour is the variable that says what a daemon of this test does.
const behaviour = "BANGER_TEST_DAEMON"

// TestMain also runs the daemons that Connect starts: "TEST daemon run --ready-fd=3".
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "daemon" {
		runDaemon(os.NewFile(3, "ready"))
		return
	}
	os.Exit(m.Run())
}

// runDaemon answers one thing only: its version.
func runDaemon(ready *os.File) {
	fmt.Println("the daemon was started")
	switch what, text, _ := strings.Cut(os.Getenv(behaviour), " "); what {
	case "ends":
		return
	case "fails":
		fmt.Fprintln(ready, text)
		return
	case "hangs":
		awaitTestEnd()
		return
	}
	ln, err := private.Listen(filepath.Join(os.Getenv("BANGER_RUN_DIR"), "api.sock"))
	if err != nil {
		fmt.Fprintln(ready, err)
		return
	}
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(wire.Version{PID: os.Getpid(), State: os.Getenv("BANGER_STATE_DIR")})
	}))
	fmt.Fprintln(ready, "ready")
	ready.Close()
	awaitTestEnd()
}

// awaitTestEnd returns when the test that started this daemon has ended.
func awaitTestEnd() {
	if conn, err := net.Dial("unix", os.Getenv("BANGER_RUN_DIR")+"/lifeline"); err == nil {
		io.Copy(io.Discard, conn)
	}
}

// newDaemon returns the daemon of new directories, which may not run yet.
func newDaemon(t *testing.T, does string) (*Daemon, host.Paths) {
	t.Helper()
	dir, err := os.MkdirTemp("", "connect") // shorter than t.TempDir: a socket's path has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	paths := host.Paths{State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run")}
	t.Setenv("BANGER_STATE_DIR", paths.State)
	t.Setenv("BANGER_RUN_DIR", paths.Run)
	t.Setenv(behaviour, does)
	if err := os.Mkdir(paths.Run, 0o700); err != nil {
		t.Fatal(err)
	}
	lifeline, err := net.Listen("unix", paths.Run+"/lifeline")
	if err != nil {
		t.Fatal(err)
	}
	var held []net.Conn
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for conn, err := lifeline.Accept(); err == nil; conn, err = lifeline.Accept() {
			held = append(held, conn)
		}
	}()
	t.Cleanup(func() {
		lifeline.Close()
		<-accepted
		for _, c := range held {
			c.Close()
		}
	})
	return New(paths, client.New(paths.Socket())), paths
}

// TestAnotherVersionElsewhereIsSaidOnce: the daemon of another host may be another one, and the user learns it.
func TestAnotherVersionElsewhereIsSaidOnce(t *testing.T) {
	for version, want := range map[string]string{banger.Version: "", "0.0.1": "ssh://far has version 0.0.1, but"} {
		c := client.New(apitest.ServeVersion(t, wire.Version{Version: version}, http.NotFound))
		said := ""
		d := Through(host.Paths{}, c, "ssh://far", func(line string) { said += line })
		for range 2 {
			if _, err := d.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.HasPrefix(said, want) || strings.Count(said, "far") > 1 || want == "" && said != "" {
			t.Errorf("of version %s is said %q", version, said)
		}
	}
}

// TestOneDaemonIsStarted lets several clients connect at the same time.
func TestOneDaemonIsStarted(t *testing.T) {
	_, paths := newDaemon(t, "")
	pids := make([]int, 5)
	var wg sync.WaitGroup
	for i := range pids {
		wg.Go(func() {
			client, err := New(paths, client.New(paths.Socket())).Connect(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			v, err := client.Version(t.Context())
			if err != nil {
				t.Error(err)
			}
			pids[i] = v.PID
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if pid != pids[0] {
			t.Errorf("the daemons are %v", pids)
		}
	}
	log, err := os.ReadFile(New(paths, nil).LogPath())
	if err != nil || strings.Count(string(log), "started\n") != 1 {
		t.Errorf("the log is %q, %v", log, err)
	}
}

// TestADaemonThatDoesNotStart checks what the user reads.
func TestADaemonThatDoesNotStart(t *testing.T) {
	for does, want := range map[string]string{
		"ends":               "cannot start the daemon: it ended at once; see LOG",
		"fails no room here": "cannot start the daemon: no room here",
	} {
		d, _ := newDaemon(t, does)
		_, err := d.Connect(t.Context())
		if want = strings.ReplaceAll(want, "LOG", d.LogPath()); fmt.Sprint(err) != want ||
			banger.CodeOf(err) != banger.CodeUnavailable {
			t.Errorf("%s: %v", does, err)
		}
		if d.Runs(t.Context()) {
			t.Errorf("%s: it runs", does)
		}
	}
}

// TestTheUserNeedNotWait checks that a wait for a daemon that hangs, or for another client's start, can be interrupted.
func TestTheUserNeedNotWait(t *testing.T) {
	ctx, interrupt := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer interrupt()
	d, _ := newDaemon(t, "hangs")
	if _, err := d.Connect(ctx); banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("a daemon that hangs: %v", err)
	}
	d, paths := newDaemon(t, "")
	if err := os.Mkdir(paths.State, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(paths.State, "daemon.start"))
	if err == nil {
		defer lock.Close()
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer interrupt()
	if _, err := d.Connect(ctx); banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("another client starts it: %v", err)
	}
}

// TestADaemonOfAnotherStateDirectoryIsNotUsed checks that a command does not act on VMs that the user did not name.
func TestADaemonOfAnotherStateDirectoryIsNotUsed(t *testing.T) {
	d, paths := newDaemon(t, "")
	if _, err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	t.Setenv("BANGER_STATE_DIR", other)
	another := New(host.Paths{State: other, Run: paths.Run}, client.New(paths.Socket()))
	if _, err := another.Connect(t.Context()); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("it is %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(paths.State, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BANGER_STATE_DIR", link)
	same := New(host.Paths{State: link, Run: paths.Run}, client.New(paths.Socket()))
	if _, err := same.Connect(t.Context()); err != nil {
		t.Errorf("by another name of the same directory: %v", err)
	}
}
