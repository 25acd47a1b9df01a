package filecopy

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/render"
	"banger/internal/frame"
	"banger/internal/testing/apitest"
	"banger/internal/text"
)

// local is a copy with its own output.
type local struct {
	Copy
	out bytes.Buffer
}

// run copies as the command does.
func (l *local) run(t *testing.T, src, dst string) (banger.CopyReport, error) {
	t.Helper()
	p, err := ParsePlaces(src, dst, false, false)
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return banger.CopyReport{}, err
	}
	return l.Run(t.Context(), p)
}

// copyFrom returns a copy whose daemon answers with handle.
func copyFrom(t *testing.T, handle http.HandlerFunc) *local {
	t.Helper()
	l := &local{Copy: Copy{
		Client:   client.New(apitest.Serve(t, handle)),
		Progress: render.NewProgress(io.Discard, false),
		Patience: 10 * time.Second,
	}}
	l.Stdout = &l.out
	return l
}

// hostileAgent returns a copy whose agent answers a stat with a regular file, and a copy request by calling answer.
func hostileAgent(t *testing.T, answer func(conn net.Conn)) *local {
	t.Helper()
	return copyFrom(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("op") == banger.FileStat {
			json.NewEncoder(w).Encode(banger.FileInfo{Mode: unix.S_IFREG | 0o644})
			return
		}
		conn := apitest.Upgrade(w, r)
		defer conn.Close()
		answer(conn)
	})
}

// frames returns entries as a tar in frames, as the agent sends it, and then the frame last with report.
func frames(last frame.Type, report string, entries ...tar.Header) []byte {
	var whole, out bytes.Buffer
	w := tar.NewWriter(&whole)
	for _, h := range entries {
		h.Mode, h.Format = 0o4755, tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
	}
	w.Close()
	frame.Write(&out, frame.Stdout, whole.Bytes())
	frame.Write(&out, last, []byte(report))
	return out.Bytes()
}

// TestAFileOfAVMArrivesAsOneOrNotAtAll lets the agent of a VM answer in hostile ways. Each answer must give one short
// error and leave no file behind.
func TestAFileOfAVMArrivesAsOneOrNotAtAll(t *testing.T) {
	reg := tar.Header{Typeflag: tar.TypeReg, Name: "passwd"}
	dir := tar.Header{Typeflag: tar.TypeDir, Name: "passwd/"}
	link := tar.Header{Typeflag: tar.TypeSymlink, Name: "passwd", Linkname: "/etc/shadow"}
	huge, _ := json.Marshal(banger.Error{Code: "denied\x1b[2J", Message: strings.Repeat("\u202e\x1b", 60_000),
		Hint: strings.Repeat("h", 300_000)})
	for name, c := range map[string]struct {
		answer []byte
		words  string
	}{
		"a directory":   {frames(frame.Exit, "{}", dir), "is a directory, but a file was asked for"},
		"a symlink":     {frames(frame.Exit, "{}", link), "is a symlink, but a file was asked for"},
		"several files": {frames(frame.Exit, "{}", reg, reg), "to come alone"},
		"another file": {frames(frame.Exit, "{}", tar.Header{Typeflag: tar.TypeReg, Name: "shadow"}),
			"not what was asked for"},
		"a broken report":  {frames(frame.Exit, "[]", reg), "sent a broken report"},
		"an error behind":  {frames(frame.Error, `{"code":"denied","message":"no"}`, reg), "no"},
		"a broken error":   {frames(frame.Error, `no`, reg), "sent a broken error"},
		"no last frame":    {frames(frame.Exit, "{}", reg)[:1540], "went away in the middle"},
		"another frame":    {frames(frame.Stderr, "x", reg), "has no place in this copy"},
		"an endless error": {frames(frame.Error, string(huge), reg), `\u202e`},
	} {
		t.Run(name, func(t *testing.T) {
			cp := hostileAgent(t, func(conn net.Conn) { conn.Write(c.answer) })
			into := t.TempDir()
			_, err := cp.run(t, "box:/etc/passwd", filepath.Join(into, "x"))
			if err == nil || !strings.Contains(err.Error(), c.words) || len(err.Error()) > 8*text.MaxError ||
				strings.ContainsAny(err.Error(), "\x1b\u202e") {
				t.Errorf("the error is %.5000v, not a sentence with %q", err, c.words)
			}
			if list, err := os.ReadDir(into); err != nil || len(list) > 0 {
				t.Errorf("there is left %v, %v", list, err)
			}
		})
	}
	cp := hostileAgent(t, func(conn net.Conn) { conn.Write(frames(frame.Exit, "{}", reg)) })
	into := t.TempDir() + "/x"
	report, err := cp.run(t, "box:/etc/passwd", into)
	if err != nil {
		t.Error(err)
	}
	if st, err := os.Lstat(into); err != nil || st.Mode() != 0o755 {
		t.Errorf("the file is %v, %v", st.Mode(), err)
	}
	if got := Lost(report); got != "1 file lost its setuid or setgid bit or capabilities; -a keeps them" {
		t.Errorf("it says %q", got)
	}
}

// TestAnAgentMustSayWhatAFileIs lets the agent of a VM state no type, which would allow it to send any type.
func TestAnAgentMustSayWhatAFileIs(t *testing.T) {
	cp := copyFrom(t, func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(banger.FileInfo{Mode: 0o644})
	})
	if _, err := cp.run(t, "box:/etc/passwd", t.TempDir()); banger.CodeOf(err) != banger.CodeGuest {
		t.Errorf("the error is %v", err)
	}
}

// TestACopyEndsWithASilentAgent lets the agent of a VM stop at each place where the copy waits for it.
func TestACopyEndsWithASilentAgent(t *testing.T) {
	reg := tar.Header{Typeflag: tar.TypeReg, Name: "passwd"}
	whole := frames(frame.Exit, "{}", reg)
	local := filepath.Join(t.TempDir(), "local")
	if err := os.WriteFile(local, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := bytes.Repeat([]byte{byte(frame.Stdout), 0, 0, 0, 0, 0, 0, 0}, 1000)
	for name, c := range map[string]struct {
		src, dst string
		answer   func(net.Conn)
	}{
		"no frame":          {"box:/etc/passwd", "x", func(net.Conn) {}},
		"no frame, a tar":   {"box:/etc/passwd", "-", func(net.Conn) {}},
		"in the middle":     {"box:/etc/passwd", "x", func(c net.Conn) { c.Write(whole[:600]) }},
		"no last frame":     {"box:/etc/passwd", "x", func(c net.Conn) { c.Write(whole[:len(whole)-10]) }},
		"a part of a frame": {"box:/etc/passwd", "x", func(c net.Conn) { c.Write(whole[:4]) }},
		"empty frames": {"box:/etc/passwd", "x", func(c net.Conn) {
			for _, err := c.Write(empty); err == nil; _, err = c.Write(empty) {
			}
		}},
		"takes nothing":    {local, "box:/x", func(net.Conn) {}},
		"takes and is mum": {local, "box:/x", func(c net.Conn) { io.Copy(io.Discard, c) }},
	} {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{})
			defer close(over)
			cp := hostileAgent(t, func(conn net.Conn) { c.answer(conn); <-over })
			cp.Patience = 100 * time.Millisecond
			into := t.TempDir()
			dst := c.dst
			if dst == "x" {
				dst = filepath.Join(into, dst)
			}
			_, err := cp.run(t, c.src, dst)
			if banger.CodeOf(err) != banger.CodeTimeout ||
				!strings.Contains(fmt.Sprint(err), "the VM's agent is silent: for 100ms") {
				t.Errorf("the error is %v", err)
			}
			if list, err := os.ReadDir(into); err != nil || len(list) > 0 {
				t.Errorf("there is left %v, %v", list, err)
			}
		})
	}
}
