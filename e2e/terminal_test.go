package e2e

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
)

// resize ROWS COLS ROWS2 COLS2 command... runs the command on a terminal of the first size and
// changes the size to the second when the command prints "ready". It keeps the output in the file
// "terminal".
func cmdResize(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 5, "resize ROWS COLS ROWS COLS command...")
	size := func(i int) *pty.Winsize {
		r, err := strconv.Atoi(args[i])
		ts.Check(err)
		c, err := strconv.Atoi(args[i+1])
		ts.Check(err)
		return &pty.Winsize{Rows: uint16(r), Cols: uint16(c)}
	}
	before, after := size(0), size(2)
	w := theWorld(ts)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[4], args[5:]...)
	cmd.Env = append(os.Environ(), w.env()...)
	f, err := pty.StartWithSize(cmd, before)
	ts.Check(err)
	defer f.Close()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	resized := false
	for {
		n, err := f.Read(buf)
		seen.Write(buf[:n])
		if !resized && strings.Contains(seen.String(), "ready") {
			resized = true
			ts.Check(pty.Setsize(f, after))
		}
		if err != nil { // EIO when the last holder of the other side has ended
			break
		}
	}
	err = cmd.Wait()
	ts.Logf("%s", seen.String())
	ts.Check(os.WriteFile(ts.MkAbs("terminal"), seen.Bytes(), 0o644))
	ts.Check(err)
}

// http PATH requests a path of the daemon's API, as curl --unix-socket does, and keeps the body in
// the file "body".
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 1, "http PATH")
	w := theWorld(ts)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", w.run+"/api.sock")
		}}}
	resp, err := client.Get("http://banger" + args[0])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("body"), body, 0o644))
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", resp.Status, body)
	}
}
