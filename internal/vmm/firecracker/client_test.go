package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// TestAnswers: how answers of a VMM are understood, proper ones and others.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer string // as it is on the wire
		err    string
	}{
		"a body":  {"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"id\":\"vm1\"}", ""},
		"no body": {"HTTP/1.1 204 No Content\r\n\r\n", "the answer is empty"},
		"a fault": {reply("400 Bad Request", `{"fault_message":"No such\ndrive. "}`),
			"Firecracker refused GET /: No such drive"},
		"a fault of no JSON":   {"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\n<xml>", "status 400 without a reason"},
		"an escape in a fault": {reply("500 No", `{"fault_message":"a\u001b[2Jb"}`), `a\x1b[2Jb`},
		"truncated JSON":       {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{\"id\":", "not the expected JSON"},
		"a wrong type":         {"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"id\":1}", "not the expected JSON"},
		"a truncated body":     {"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "unexpected EOF"},
		"no HTTP":              {"SSH-2.0-banger\r\n", "malformed HTTP"},
		"a redirect": {"HTTP/1.1 307 No\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
			"does not redirect"},
		"nothing":             {"", "EOF"},
		"a status of its own": {"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", "status 999"},
		"headers without end": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), "exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			var info InstanceInfo
			err := newClient(answering(t, c.answer)).call(t.Context(), http.MethodGet, "/", nil, &info)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v, not one with %q", err, c.err)
			}
			if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("the error %q is not printable", err)
			}
		})
	}
}

// TestAnAnswerWithoutEndIsCut: no more than the limit is kept.
func TestAnAnswerWithoutEndIsCut(t *testing.T) {
	socket := serving(t, func(conn net.Conn) {
		conn.Read(make([]byte, 4096))
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		for chunk := []byte(strings.Repeat(" ", 64<<10)); ; {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	})
	var info InstanceInfo
	if err := newClient(socket).call(t.Context(), http.MethodGet, "/", nil, &info); err == nil ||
		!strings.Contains(err.Error(), "more than") {
		t.Errorf("the error is %v", err)
	}
}

// TestSilenceEnds: a call to a VMM that does not answer ends at its deadline.
func TestSilenceEnds(t *testing.T) {
	socket := serving(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := newClient(socket).call(ctx, http.MethodGet, "/", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

// TestAHugeRequestIsNotSent: Firecracker would refuse it after having read it.
func TestAHugeRequestIsNotSent(t *testing.T) {
	err := newClient("/nonexistent").
		call(t.Context(), http.MethodPut, "/boot-source", BootSource{BootArgs: strings.Repeat("x", maxBody)}, nil)
	if err == nil || !strings.Contains(err.Error(), "more than the 51200") {
		t.Errorf("the error is %v", err)
	}
}

// FuzzAnswer: no answer panics, and every error is one printable line.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{`{"id":"vm1","state":"Running"}`, `{"fault_message":"x"}`, `{"fault_message":1}`, `[]`,
		`{`, "\x00", `{"id":{}}`} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
		f.Add(204, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var info InstanceInfo
		err := understand(status, body, &info)
		if status == http.StatusNoContent && err == nil {
			t.Fatal("an empty answer is one")
		}
		var refused *fault
		if errors.As(err, &refused) {
			text := refused.Error()
			if utf8.RuneCountInString(text) > maxFault+1 || !utf8.ValidString(text) ||
				strings.ContainsFunc(text, unicode.IsControl) {
				t.Fatalf("the fault is %q", text)
			}
		}
	})
}

func reply(status, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// answering sends the same answer to each request and then closes the connection.
func answering(t *testing.T, answer string) string {
	return serving(t, func(conn net.Conn) {
		head := make([]byte, 4096)
		conn.Read(head)
		io.WriteString(conn, answer)
	})
}

// serving listens on a socket until the test ends.
func serving(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return socket
}
