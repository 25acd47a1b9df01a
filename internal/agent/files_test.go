package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/archive"
	"banger/internal/frame"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// startCopy starts a copy and returns its stream.
func startCopy(t testing.TB, a *agenttest.Agent, r banger.FileRequest) *agenttest.Running {
	t.Helper()
	conn, err := a.Files(processtest.WithPatience(t), r)
	if err != nil {
		t.Fatal(err)
	}
	return agenttest.NewRunning(t, conn)
}

// answer reads the one frame that answers an extract.
func answer(t testing.TB, r *agenttest.Running) (report banger.CopyReport, failed *banger.Error) {
	t.Helper()
	typ, p, err := r.Frames.Next()
	if err != nil || typ != frame.Response && typ != frame.Error {
		t.Fatalf("the answer is frame %d %q, %v", typ, p, err)
	}
	if typ == frame.Error {
		failed = new(banger.Error)
		err = json.Unmarshal(p, failed)
	} else {
		err = json.Unmarshal(p, &report)
	}
	if err != nil {
		t.Error(err)
	}
	return report, failed
}

func tree(t testing.TB) (dir string, content []byte) {
	t.Helper()
	dir, content = filepath.Join(t.TempDir(), "tree"), agenttest.Noise(3<<20+17)
	if err := os.MkdirAll(dir+"/deep", 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/deep/big", content, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("deep/big", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	return dir, content
}

// TestATreeGoesOutAndIn checks that a tree leaves as one stream of frames and enters as another.
func TestATreeGoesOutAndIn(t *testing.T) {
	a := agenttest.Start(t)
	dir, content := tree(t)
	out := startCopy(t, a, banger.FileRequest{Op: banger.FileArchive, Path: []byte(dir), Name: []byte("copy")})
	frames := archive.NewFrames(out.Frames, frame.Stdout, frame.Exit)
	data, err := io.ReadAll(frames)
	if err != nil {
		t.Fatal(err)
	}
	var report banger.CopyReport
	if err := json.Unmarshal(frames.Last(), &report); err != nil || report.Entries != 4 ||
		report.Bytes != int64(len(content)) {
		t.Errorf("the agent reports %+v, %v", report, err)
	}
	to := t.TempDir()
	report, failed := answer(t, startCopy(t, a, banger.FileRequest{Op: banger.FileExtract, Path: []byte(to)}).Feed(data))
	if failed != nil || report.Entries != 4 || report.Bytes != int64(len(content)) {
		t.Fatalf("the agent answers %+v, %v", report, failed)
	}
	if got, err := os.ReadFile(to + "/copy/link"); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file has %d bytes, not %d, or differs: %v", len(got), len(content), err)
	}
}

func TestStatFile(t *testing.T) {
	a := agenttest.Start(t)
	dir, content := tree(t)
	for name, want := range map[string]banger.FileInfo{
		"deep":     {Mode: 0o040750},
		"deep/big": {Mode: 0o100640, Size: int64(len(content))},
		"link":     {Mode: 0o120777, Target: []byte("deep/big")},
	} {
		got, err := a.StatFile(processtest.WithPatience(t),
			banger.FileRequest{Op: banger.FileStat, Path: []byte(dir + "/" + name)})
		if err != nil || got.Mode != want.Mode || want.Size > 0 && got.Size != want.Size ||
			!bytes.Equal(got.Target, want.Target) || got.ModTime == 0 {
			t.Errorf("%s is %+v, %v", name, got, err)
		}
	}
	_, err := a.StatFile(processtest.WithPatience(t), banger.FileRequest{Op: banger.FileStat, Path: []byte(dir + "/none")})
	if banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestCopiesThatFail checks that a failure is reported by code, sentence and hint, although the
// client may still send.
func TestCopiesThatFail(t *testing.T) {
	a := agenttest.Start(t)
	dir, _ := tree(t)
	for name, c := range map[string]struct {
		r     banger.FileRequest
		stdin []byte
		code  banger.Code
		words string
	}{
		"no such file": {banger.FileRequest{Op: banger.FileArchive, Path: []byte(dir + "/none"), Name: []byte("n")},
			nil, banger.CodeNotFound, "no such file"},
		"no path": {banger.FileRequest{Op: banger.FileArchive, Name: []byte("n")}, nil, banger.CodeInvalid,
			"no path"},
		"no parent": {banger.FileRequest{Op: banger.FileExtract, Path: []byte(dir + "/a/b")}, tarOfOne(t),
			banger.CodeNotFound, "there is no directory"},
		"a file into a file": {banger.FileRequest{Op: banger.FileExtract, Path: []byte(dir + "/deep/big"), Into: true},
			tarOfOne(t), banger.CodeInvalid, "not a directory"},
		"no tar": {banger.FileRequest{Op: banger.FileExtract, Path: []byte(dir)}, agenttest.Noise(5 << 20),
			banger.CodeInvalid, "one of its headers is not valid"},
	} {
		r := startCopy(t, a, c.r)
		if c.stdin != nil {
			r.Feed(c.stdin)
		}
		_, failed := answer(t, r)
		if failed == nil || failed.Code != c.code || !strings.Contains(failed.Message, c.words) || failed.Hint != "" &&
			strings.Contains(failed.Message, failed.Hint) {
			t.Errorf("%s: the answer is %+v", name, failed)
		}
	}
}

func tarOfOne(t testing.TB) []byte {
	t.Helper()
	dir, _ := tree(t)
	var b bytes.Buffer
	if _, err := archive.Write(context.Background(), &b, dir+"/deep/big", archive.WriteOptions{Name: "big"}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestAClientThatGoesLeavesNothing checks that a client that goes away in the middle of a file
// leaves nothing of it.
func TestAClientThatGoesLeavesNothing(t *testing.T) {
	a := agenttest.Start(t)
	to := t.TempDir()
	r := startCopy(t, a, banger.FileRequest{Op: banger.FileExtract, Path: []byte(to)})
	if err := r.Send(frame.Stdin, tarOfOne(t)[:frame.MaxData]); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		entries, err := os.ReadDir(to)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	agenttest.Await(t, "the file is begun", func() bool { return left() == 1 })
	r.Conn.Close()
	agenttest.Await(t, "the file is gone", func() bool { return left() == 0 })
}
