package logfile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestALogHasThreeFilesOfTenMegabytes writes more than fits, and counts what is kept.
func TestALogHasThreeFilesOfTenMegabytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	log := Open(path)
	line := strings.Repeat("x", 1<<16-1) + "\n"
	for range 5 * MaxSize * (1 << 20) / len(line) {
		if _, err := io.WriteString(log, line); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(log, "the end\n"); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Read(t.Context(), path, -1, false, &out); err != nil {
		t.Fatal(err)
	}
	// The oldest files are removed in the background, so there may be more of them for a moment.
	if out.Len() < 2*MaxSize<<20 || !strings.HasSuffix(out.String(), "x\nthe end\n") {
		t.Errorf("%d bytes are kept, which end with %q", out.Len(), out.String()[out.Len()-20:])
	}
	list, err := files(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		st, err := os.Stat(name)
		if err != nil {
			continue // removed meanwhile
		}
		if st.Mode().Perm() != 0o600 || st.Size() > MaxSize<<20 {
			t.Errorf("%s has mode %o and %d bytes", name, st.Mode().Perm(), st.Size())
		}
	}
}

func TestTheLastLinesGoOverFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daemon.log")
	for name, text := range map[string]string{
		"daemon-2026-01-01T00-00-00.000.log": "one\ntwo\n",
		"daemon-2026-01-02T00-00-00.000.log": "three\n",
		"daemon.log":                         "four\nfive",
		"daemon.start":                       "another file\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for tail, want := range map[int]string{-1: "one\ntwo\nthree\nfour\nfive", 0: "", 1: "five", 3: "three\nfour\nfive",
		9: "one\ntwo\nthree\nfour\nfive"} {
		var out bytes.Buffer
		if err := Read(t.Context(), path, tail, false, &out); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("the last %d lines are %q, not %q", tail, out.String(), want)
		}
	}
	var out bytes.Buffer
	if err := Read(t.Context(), filepath.Join(dir, "none", "x.log"), -1, false, &out); err != nil || out.Len() > 0 {
		t.Errorf("a log that is not there: %q, %v", out.String(), err)
	}
}

// TestAFollowerSeesWhatIsWrittenAcrossARotation follows a log while its file is replaced.
func TestAFollowerSeesWhatIsWrittenAcrossARotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.log")
	if err := os.WriteFile(path, []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Read(ctx, path, -1, true, w) }()
	want := func(line string) {
		t.Helper()
		buf := make([]byte, len(line))
		if _, err := io.ReadFull(r, buf); err != nil || string(buf) != line {
			t.Fatalf("the follower reads %q, %v, not %q", buf, err, line)
		}
	}
	want("0\n")
	for i := 1; i < 6; i++ {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "%d\n", i)
		f.Close()
		want(fmt.Sprintf("%d\n", i))
		if i%2 == 0 {
			if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the end of a follower is the error %v", err)
	}
}
