package api

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory, which works with a test's own clock.
type pipes struct {
	conns chan net.Conn
	end   chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.end); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// TestTheAPIWaitsForNobodyForEver checks what happens to clients that send nothing, and when.
func TestTheAPIWaitsForNobodyForEver(t *testing.T) {
	const head = "POST /v1/vms HTTP/1.1\r\nHost: banger\r\nContent-Length: 100\r\n\r\n"
	for name, tt := range map[string]struct {
		say    []string // sent in pieces, with a pause after each
		pause  time.Duration
		answer string // start of the answer; "" for no answer
		after  time.Duration
	}{
		"a silent connection is closed": {nil, 0, "", headTime},
		"half a head":                   {[]string{"GET / HTTP"}, 0, "HTTP/1.1 400 ", headTime},
		"a body that never comes":       {[]string{head}, 0, "HTTP/1.1 504 ", bodyTime},
		"half a body": {[]string{head, `{"image":`}, 20 * time.Second, "HTTP/1.1 504 ",
			20*time.Second + bodyTime},
		"a body that comes slowly is waited for": {[]string{head, `{"im`, `age":`, `1}` + strings.Repeat(" ", 89)},
			20 * time.Second, "HTTP/1.1 400 ", 60 * time.Second},
		"a connection on which nothing more comes": {[]string{"GET /openapi.json HTTP/1.1\r\nHost: banger\r\n\r\n"}, 0,
			"HTTP/1.1 200 ", idleTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := &pipes{make(chan net.Conn), make(chan struct{})}
				srv := (&Server{Log: slog.New(slog.DiscardHandler)}).HTTP(t.Context())
				go srv.Serve(ln)
				defer srv.Close()
				near, far := net.Pipe()
				ln.conns <- far
				began := time.Now()
				go func() {
					for i, text := range tt.say {
						if i > 0 {
							time.Sleep(tt.pause)
						}
						io.WriteString(near, text)
					}
				}()
				r := bufio.NewReader(near)
				answer, answered := "", time.Duration(0)
				if resp, err := http.ReadResponse(r, nil); err == nil {
					answer, answered = fmt.Sprintf("HTTP/1.1 %d ", resp.StatusCode), time.Since(began)
					io.Copy(io.Discard, resp.Body)
				}
				io.Copy(io.Discard, r)
				if answer != tt.answer {
					t.Errorf("the answer begins %q, not %q", answer, tt.answer)
				}
				if end := time.Since(began); max(end, answered) < tt.after || answered > tt.after ||
					answer == "" && end > tt.after+time.Second {
					t.Errorf("it is answered after %s and closed after %s, not %s", answered, end, tt.after)
				}
			})
		})
	}
}
