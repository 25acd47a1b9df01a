package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"banger"
	"banger/internal/archive"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/sparse"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/overlaytest"
	"banger/internal/testing/processtest"
)

// withDisk starts an agent whose disk can have workspaces. root is a directory for them.
func withDisk(t *testing.T) (a *agenttest.Agent, client guest.Workspaces, root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root mounts")
	}
	root, err := os.MkdirTemp("", "workspaces-") // no workspace can be below /dev, where the other directory may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	t.Setenv("TMPDIR", overlaytest.Directory(t))
	a = agenttest.Start(t)
	return a, guest.Workspaces{Client: a.Client}, root
}

// fileSystem returns a file system with one file.
func fileSystem(t *testing.T) []byte {
	t.Helper()
	tree, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(tree+"/file", []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	mkfs := exec.Command("mkfs.ext4", "-q", "-O", "^has_journal", "-d", tree, image, "4M")
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var sent bytes.Buffer
	if err := sparse.Send(&sent, f); err != nil {
		t.Fatal(err)
	}
	return sent.Bytes()
}

// next reads a frame with JSON, which may be an error.
func next[T any](t *testing.T, conn *agenttest.Running, want frame.Type) (v T, failed *banger.Error) {
	t.Helper()
	kind, p, err := conn.Frames.Next()
	if err != nil || kind != want && kind != frame.Error {
		t.Fatalf("the answer is frame %d %q, %v", kind, p, err)
	}
	if kind == frame.Error {
		failed = new(banger.Error)
		err = json.Unmarshal(p, failed)
	} else {
		err = json.Unmarshal(p, &v)
	}
	if err != nil {
		t.Error(err)
	}
	return v, failed
}

// running returns what runs behind a stream that could be opened.
func running(t *testing.T, conn net.Conn, err error) *agenttest.Running {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return agenttest.NewRunning(t, conn)
}

// TestAWorkspaceOverTheWire makes a workspace, works in it, and reads its changes.
func TestAWorkspaceOverTheWire(t *testing.T) {
	a, client, root := withDisk(t)
	ctx := processtest.WithPatience(t)
	it := banger.Workspace{ID: strings.Repeat("a", 32), Name: "box", Path: root + "/box", Baseline: "one"}
	conn, err := client.Prepare(ctx, it, "")
	if _, failed := next[banger.Workspace](t, running(t, conn, err), frame.Exit); failed == nil ||
		failed.Code != banger.CodeConflict {
		t.Errorf("before the configuration: %v", failed)
	}
	if _, err := a.Configure(ctx, guest.Config{Hostname: "box"}); err != nil {
		t.Fatal(err)
	}
	conn, err = client.Prepare(ctx, it, "3:4")
	stream := running(t, conn, err)
	first, failed := next[banger.Workspace](t, stream, frame.Response)
	if failed != nil || first.UID != 3 || first.GID != 4 {
		t.Fatalf("the first answer is %+v, %v", first, failed)
	}
	made, failed := next[banger.Workspace](t, stream.Feed(fileSystem(t)), frame.Exit)
	if failed != nil || made.Path != it.Path {
		t.Fatalf("the last answer is %+v, %v", made, failed)
	}
	t.Cleanup(func() { client.Remove(processtest.WithPatience(t), "box", true) })
	command := agenttest.Shell("pwd; echo two >file; echo three >new")
	command.Workspace, command.Dir = true, "/nonexistent"
	if ran := a.Run(t, command).Finish(); string(ran.Stdout) != it.Path+"\n" || ran.Exit.Code != 0 {
		t.Errorf("a command: %+v", ran)
	}
	command.Workspace = false
	if ran := a.Run(t, command).Finish(); ran.Err == nil {
		t.Errorf("a command in another directory: %+v", ran)
	}
	conn, err = client.Changes(ctx, guest.WorkspaceRequest{Name: "box"})
	stream = running(t, conn, err).Feed(nil)
	frames := archive.NewFrames(stream.Frames, frame.Stdout, frame.Exit)
	to := t.TempDir()
	if _, err := archive.Extract(ctx, frames, to, archive.ExtractOptions{Into: true, Unbounded: true}); err != nil {
		t.Error(err)
	}
	var report banger.WorkspaceReport
	if err := json.Unmarshal(frames.Last(), &report); err != nil || report.Entries != 2 || report.Bytes != 10 {
		t.Errorf("the report is %+v, %v", report, err)
	}
	if text, err := os.ReadFile(to + "/new"); string(text) != "three\n" {
		t.Errorf("the new file has %q, %v", text, err)
	}
	if got, err := client.Reset(ctx, "box"); err != nil || got.Name != "box" {
		t.Errorf("a reset: %+v, %v", got, err)
	}
	if got, err := client.Update(ctx, "box", "two", nil); err != nil || got.Baseline != "two" {
		t.Errorf("an update: %+v, %v", got, err)
	}
	if list, err := client.List(ctx); err != nil || len(list) != 1 || list[0].Baseline != "two" {
		t.Errorf("there are %+v, %v", list, err)
	}
	if err := client.Remove(ctx, "box", false); err != nil {
		t.Error(err)
	}
	if err := client.Remove(ctx, "box", false); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("a second removal: %v", err)
	}
}

// TestASuspendEndsWorkspacesThatAreMade checks that nothing is left of one whose client was cut off.
func TestASuspendEndsWorkspacesThatAreMade(t *testing.T) {
	a, client, root := withDisk(t)
	ctx := processtest.WithPatience(t)
	if _, err := a.Configure(ctx, guest.Config{Hostname: "box"}); err != nil {
		t.Fatal(err)
	}
	it := banger.Workspace{ID: strings.Repeat("a", 32), Name: "box", Path: root + "/box", Baseline: "one"}
	conn, err := client.Prepare(ctx, it, "")
	stream := running(t, conn, err)
	next[banger.Workspace](t, stream, frame.Response)
	head := binary.BigEndian.AppendUint64(nil, 1<<20) // the size of the file, and then a piece of all of it
	head = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(head, 0), 1<<20)
	stream.Send(frame.Stdin, append(head, make([]byte, 100<<10)...))
	if _, err := a.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	if _, failed := next[banger.Workspace](t, stream, frame.Exit); failed == nil ||
		!strings.Contains(failed.Message, "was suspended") {
		t.Errorf("the error is %v", failed)
	}
	if _, err := a.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(it.Path); err == nil {
		t.Error("its path is left")
	}
	if list, err := client.List(ctx); err != nil || len(list) > 0 {
		t.Errorf("there are %+v, %v", list, err)
	}
}

// TestAnEarlierAgentHasNoWorkspaces checks the error for a VM that runs since before there were workspaces.
func TestAnEarlierAgentHasNoWorkspaces(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/agent-*-" + runtime.GOARCH + ".xz")
	if err != nil || runtime.GOARCH == "amd64" && len(files) == 0 {
		t.Fatalf("there is no agent of an earlier release: %v", err)
	}
	for _, file := range files[:min(len(files), 1)] {
		client := guest.Workspaces{Client: agenttest.StartProgram(t, unpacked(t, file)).Client}
		_, err := client.List(processtest.WithPatience(t))
		if banger.CodeOf(err) != banger.CodeVersion || !strings.Contains(err.Error(), "a stop and a start") {
			t.Errorf("the error is %v", err)
		}
	}
}
