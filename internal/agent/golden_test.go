package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"banger"
	"banger/internal/archive"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// TestThisBangerSpeaksWithEarlierAgents makes the requests of today's host that need no booted guest to the agents of
// earlier releases, which are kept in testdata/golden for ever. A VM keeps its agent while banger is upgraded.
// scripts/golden adds the agent of a release.
func TestThisBangerSpeaksWithEarlierAgents(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/agent-*-" + runtime.GOARCH + ".xz")
	if err != nil || runtime.GOARCH == "amd64" && len(files) == 0 {
		t.Fatalf("there is no agent of an earlier release: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { speaks(t, agenttest.StartProgram(t, unpacked(t, file))) })
	}
	t.Run("the agent of today", func(t *testing.T) { speaks(t, agenttest.Start(t)) })
}

// unpacked returns the program in an archive.
func unpacked(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := xz.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "agent")
	out, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, r); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return program
}

// speaks makes each request once, and checks what the agent answers.
func speaks(t *testing.T, a *agenttest.Agent) {
	ctx := processtest.WithPatience(t)
	info, err := a.Ping(ctx)
	if err != nil || info.Check() != nil || !info.Can(guest.OpArchive) || info.Can("fly") {
		t.Fatalf("the agent says %+v, %v", info, err)
	}
	if _, err := a.Configure(ctx, guest.Config{Hostname: "box"}); err != nil {
		t.Errorf("configure: %v", err)
	}
	if _, err := a.SyncClock(ctx, false); err != nil {
		t.Errorf("clock: %v", err)
	}
	e := agenttest.Shell("cat; echo err >&2; exit 3")
	e.Stdin = true
	ran := a.Run(t, e).Feed([]byte("in")).Finish()
	if string(ran.Stdout) != "in" || string(ran.Stderr) != "err\n" || ran.Exit.Code != 3 {
		t.Errorf("a command: %+v", ran)
	}
	copies(t, a)
	listens(t, a)
	_, err = a.SSH(ctx, banger.SSH{Keys: []string{"ssh-ed25519 broken"}})
	if code := banger.CodeOf(err); code != banger.CodeInvalid && code != banger.CodeConflict {
		t.Errorf("ssh with a broken key: %v", err)
	}
	err = a.SetSecrets(ctx, guest.SecretsRequest{Set: map[string][]byte{"A": []byte("value")}})
	if can := info.Can(guest.OpSecrets); (err == nil) != can || !can && banger.CodeOf(err) != banger.CodeVersion {
		t.Errorf("a secret: %v", err)
	}
	mainCommand(t, a)
}

// copies copies a file out and in.
func copies(t *testing.T, a *agenttest.Agent) {
	dir, content := tree(t)
	stat := banger.FileRequest{Op: banger.FileStat, Path: []byte(dir + "/deep/big")}
	if st, err := a.StatFile(processtest.WithPatience(t), stat); err != nil || st.Size != int64(len(content)) {
		t.Errorf("stat: %+v, %v", st, err)
	}
	out := startCopy(t, a, banger.FileRequest{Op: banger.FileArchive, Path: []byte(dir), Name: []byte("copy")})
	frames := archive.NewFrames(out.Frames, frame.Stdout, frame.Exit)
	data, err := io.ReadAll(frames)
	var report banger.CopyReport
	if jerr := json.Unmarshal(frames.Last(), &report); err != nil || jerr != nil || report.Entries != 4 {
		t.Fatalf("archive: %+v, %v, %v", report, err, jerr)
	}
	to := t.TempDir()
	if report, failed := answer(t, startCopy(t, a,
		banger.FileRequest{Op: banger.FileExtract, Path: []byte(to)}).Feed(data)); failed != nil || report.Entries != 4 {
		t.Errorf("extract: %+v, %v", report, failed)
	}
	if got, err := os.ReadFile(to + "/copy/deep/big"); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the copy of the copy has %d bytes, %v", len(got), err)
	}
}

// listens asks for the listening sockets, once.
func listens(t *testing.T, a *agenttest.Agent) {
	ctx, stop := context.WithCancel(processtest.WithPatience(t))
	defer stop()
	heard := false
	err := a.WatchPorts(ctx, func([]banger.Listener) { heard = true; stop() })
	if !heard {
		t.Errorf("ports: %v", err)
	}
}

// mainCommand starts the main command, signals it, waits for it, and shuts the guest down.
func mainCommand(t *testing.T, a *agenttest.Agent) {
	ctx := processtest.WithPatience(t)
	ready := filepath.Join(t.TempDir(), "ready")
	script := "trap 'exit 7' TERM; : >" + ready + "; while :; do sleep 0.05; done"
	main := agenttest.Shell(script)
	main.Main = true
	if err := a.Start(ctx, main); err != nil {
		t.Fatalf("start: %v", err)
	}
	for { // the trap is set when the file is there
		if _, err := os.Stat(ready); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("the main command does not run")
		case <-time.After(time.Millisecond):
		}
	}
	if err := a.Signal(ctx, 15); err != nil {
		t.Errorf("signal: %v", err)
	}
	if exit, err := a.Wait(ctx); err != nil || exit.Code != 7 {
		t.Errorf("wait: %+v, %v", exit, err)
	}
	fly(t, a)
	if err := a.Shutdown(ctx, time.Second); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	agenttest.Within(t, "the agent ends", a.Ended)
}

// fly makes a request of the future, which the agent refuses with a code that says so.
func fly(t *testing.T, a *agenttest.Agent) {
	conn, err := a.Dial(processtest.WithPatience(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := frame.WriteJSON(conn, frame.Request, guest.Request{Op: "fly"}); err != nil {
		t.Fatal(err)
	}
	var refused banger.Error
	typ, p, err := frame.NewReader(conn).Next()
	if jerr := json.Unmarshal(p, &refused); err != nil || jerr != nil || typ != frame.Error ||
		refused.Code != banger.CodeVersion {
		t.Errorf("an operation of the future: frame %d, %+v, %v", typ, refused, err)
	}
}
