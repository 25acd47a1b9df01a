package output_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/output"
)

// now is the time of all records, which readers do not show without a stamp.
var now = time.Unix(1_700_000_000, 0)

// all is a view of everything.
var all = banger.LogView{Tail: -1}

func open(t *testing.T, path string) *output.Log {
	t.Helper()
	l, err := output.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// split returns the bytes of both streams in frames, and of both together in their order.
func split(t *testing.T, r io.Reader) (stdout, stderr, both string) {
	t.Helper()
	frames := frame.NewReader(r)
	for {
		typ, p, err := frames.Next()
		if err == io.EOF {
			return stdout, stderr, both
		}
		if err != nil {
			t.Fatal(err)
		}
		both += string(p)
		switch typ {
		case frame.Stdout:
			stdout += string(p)
		case frame.Stderr:
			stderr += string(p)
		default:
			t.Fatalf("frame %d", typ)
		}
	}
}

// read returns what Read writes, both streams together.
func read(t *testing.T, path string, tail int) string {
	t.Helper()
	var b bytes.Buffer
	if err := output.Read(path, banger.LogView{Tail: tail}, &b); err != nil {
		t.Fatal(err)
	}
	_, _, both := split(t, &b)
	return both
}

// TestBothStreamsAreKeptByteForByte writes bytes of any kind, in pieces of any size, in two boots.
func TestBothStreamsAreKeptByteForByte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	big := strings.Repeat("\x00\xff\r\n", 100_000)
	for range 2 {
		l := open(t, path)
		l.Append(frame.Stdout, now, []byte("no line end"))
		l.Append(frame.Stderr, now, []byte(big))
		l.Append(frame.Stdout, now, []byte{'\n'})
		l.Append(frame.Stdout, now, nil)
		l.Close()
		l.Append(frame.Stdout, now, []byte("after the end"))
	}
	var b bytes.Buffer
	if err := output.Read(path, all, &b); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, _ := split(t, &b)
	if want := strings.Repeat("no line end\n", 2); stdout != want {
		t.Errorf("stdout is %q", stdout)
	}
	if stderr != big+big {
		t.Errorf("stderr has %d bytes of %d, or not the same", len(stderr), 2*len(big))
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", st.Mode(), err)
	}
}

// TestTheTailCountsLinesOfBothStreams takes the last lines, which begin in several records.
func TestTheTailCountsLinesOfBothStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	if got := read(t, path, 3); got != "" || output.Exists(path) {
		t.Errorf("no file has %q", got)
	}
	l := open(t, path)
	if got := read(t, path, 3); got != "" || !output.Exists(path) {
		t.Errorf("an empty file has %q", got)
	}
	l.Append(frame.Stdout, now, []byte("one\ntw"))
	l.Append(frame.Stdout, now, []byte("o\n"))
	l.Append(frame.Stderr, now, []byte("three\n"))
	l.Append(frame.Stdout, now, []byte("\nfi"))
	l.Append(frame.Stdout, now, []byte("ve"))
	for tail, want := range map[int]string{-1: "one\ntwo\nthree\n\nfive", 0: "", 1: "five", 2: "\nfive",
		4: "two\nthree\n\nfive", 5: "one\ntwo\nthree\n\nfive", 99: "one\ntwo\nthree\n\nfive"} {
		if got := read(t, path, tail); got != want {
			t.Errorf("the last %d lines are %q", tail, got)
		}
	}
}

// TestOutputWithoutEndHoldsTwoFiles writes more than fits. The last file's worth is kept in any case.
func TestOutputWithoutEndHoldsTwoFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "output.log")
	if err := os.MkdirAll(path+".1/trap", 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, path)
	line := strings.Repeat("x", 10_000) + "\n"
	for range 5 * output.MaxFile / len(line) {
		l.Append(frame.Stdout, now, []byte(line))
	}
	l.Append(frame.Stdout, now, []byte("the end\n"))
	var total int64
	for _, p := range []string{path, path + ".1"} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	got := read(t, path, -1)
	if total > 2*output.MaxFile || len(got) < output.MaxFile/2 || !strings.HasSuffix(got, line+"the end\n") ||
		!strings.HasPrefix(got, line) {
		t.Errorf("the files take %d bytes, and have %d bytes of output", total, len(got))
	}
}

// TestATornRecordEndsAFile cuts a file at each byte of its last record, as a power cut may. The next boot goes on
// behind the record before.
func TestATornRecordEndsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	l := open(t, path)
	l.Append(frame.Stdout, now, []byte("whole\n"))
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := st.Size()
	l.Append(frame.Stdout, now, []byte("torn\n"))
	l.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := whole; cut < int64(len(data)); cut++ {
		for name, torn := range map[string][]byte{
			"short": data[:cut],
			"zeros": append(append([]byte(nil), data[:cut]...), make([]byte, 5000)...),
		} {
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := read(t, path, -1); got != "whole\n" {
				t.Fatalf("cut at %d, %s: it has %q", cut, name, got)
			}
			next := open(t, path)
			next.Append(frame.Stdout, now, []byte("next\n"))
			next.Close()
			if got := read(t, path, -1); got != "whole\nnext\n" {
				t.Fatalf("cut at %d, %s: after the next boot it has %q", cut, name, got)
			}
		}
	}
}

// TestHostileFiles reads what a VMM that was taken over may put in the place of the files.
func TestHostileFiles(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		set    func(path string) error
		refuse bool
	}{
		"noise":     {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{8, 0, 255}, 9999), 0o600) }, false},
		"sizes":     {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{8, 0, 0, 0, 9}, 99), 0o600) }, false},
		"nothing":   {func(p string) error { return os.WriteFile(p, nil, 0o600) }, false},
		"long":      {func(p string) error { return os.WriteFile(p, make([]byte, 3*output.MaxFile), 0o600) }, false},
		"a symlink": {func(p string) error { return os.Symlink(secret, p) }, true},
		"a second":  {func(p string) error { return os.Link(secret, p) }, true},
		"a pipe":    {func(p string) error { return unix.Mkfifo(p, 0o600) }, true},
		"a folder":  {func(p string) error { return os.Mkdir(p, 0o700) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, suffix := range []string{"", ".1"} {
				path := filepath.Join(t.TempDir(), "output.log")
				if err := c.set(path + suffix); err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if err := output.Read(path, all, &b); (err != nil) != c.refuse || b.Len() > 0 {
					t.Errorf("%s is read as %.30q, %v", suffix, &b, err)
				}
				l, err := output.Open(path)
				if err == nil {
					l.Append(frame.Stdout, now, []byte("ours"))
					l.Close()
				}
				if (err != nil) != (c.refuse && suffix == "") {
					t.Errorf("%s is opened with %v", suffix, err)
				}
			}
		})
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("what is not the VM's is now %q, %v", data, err)
	}
}

// TestAFollowerGetsAllInOrder follows from an empty file over rotations until the log is closed.
func TestAFollowerGetsAllInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	l := open(t, path)
	l.Append(frame.Stderr, now, []byte("old\nlast"))
	r, w := io.Pipe()
	go func() { // ends when the log is closed
		l.Follow(context.Background(), banger.LogView{Tail: 1}, w)
		w.Close()
	}()
	frames := frame.NewReader(r)
	if typ, p, err := frames.Next(); err != nil || typ != frame.Stderr || string(p) != "last" {
		t.Fatalf("the tail is %d %q, %v", typ, p, err)
	}
	line := 0
	for line < 3*output.MaxFile/10_000 {
		want := ""
		for range 6 { // a file holds many times as much
			text := fmt.Sprintf("%09999d\n", line)
			l.Append(frame.Stdout, now, []byte(text))
			want += text
			line++
		}
		got := ""
		for len(got) < len(want) {
			_, p, err := frames.Next()
			if err != nil {
				t.Fatal(err)
			}
			got += string(p)
		}
		if got != want {
			t.Fatalf("before line %d something is missing", line)
		}
	}
	l.Close()
	if _, _, err := frames.Next(); err != io.EOF {
		t.Errorf("after the end comes %v", err)
	}
}

// TestASlowFollowerLosesOnlyWhatRotationRemoves reads nothing while several files are filled, and then the kept end.
func TestASlowFollowerLosesOnlyWhatRotationRemoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	l := open(t, path)
	l.Append(frame.Stdout, now, []byte("first\n"))
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() { // ends when the log is closed
		defer close(ended)
		l.Follow(context.Background(), all, w)
		w.Close()
	}()
	frames := frame.NewReader(r)
	if _, p, err := frames.Next(); err != nil || string(p) != "first\n" {
		t.Fatalf("it reads %q, %v", p, err)
	}
	lines := 10 * output.MaxFile / 10_000
	for i := range lines {
		l.Append(frame.Stdout, now, []byte(fmt.Sprintf("%09999d\n", i)))
	}
	l.Close()
	_, _, rest := split(t, r)
	if want := read(t, path, -1); !strings.HasSuffix(rest, want) || len(want) < output.MaxFile/2 {
		t.Errorf("it reads %d bytes, which do not end with the %d that are kept", len(rest), len(want))
	}
	<-ended
}

// TestAFollowerEndsWithItsContext while nothing comes.
func TestAFollowerEndsWithItsContext(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "output.log"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		l.Follow(ctx, all, io.Discard)
		close(ended)
	}()
	cancel()
	<-ended
}
