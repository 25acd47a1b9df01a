package firecracker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestHandshakes: what may come between CONNECT and the stream.
func TestHandshakes(t *testing.T) {
	for name, c := range map[string]struct{ answer, err string }{
		"as it should be":     {"OK 1073741824\nhello", ""},
		"no answer":           {"", "EOF"},
		"half an answer":      {"OK 10", "EOF"},
		"a refusal":           {"NO\n", `answered CONNECT with "NO"`},
		"no number":           {"OK x\n", `"OK x"`},
		"a number too large":  {"OK 99999999999\n", `"OK 99999999999"`},
		"an empty line":       {"\n", `""`},
		"a line without end":  {"OK " + strings.Repeat("1", 1<<16), "more than 32 bytes"},
		"a control character": {"OK 1\x1b\n", `\x1b`},
	} {
		t.Run(name, func(t *testing.T) {
			r := strings.NewReader(c.answer)
			err := readHandshake(r)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v, not one with %q", err, c.err)
			}
			if rest, _ := io.ReadAll(r); err == nil && string(rest) != "hello" {
				t.Errorf("of the stream is left %q", rest)
			}
		})
	}
}

// TestAGuestThatBootsIsAskedAgain: until it listens, Firecracker ends each connection.
func TestAGuestThatBootsIsAskedAgain(t *testing.T) {
	var tries atomic.Int32
	socket := serving(t, func(conn net.Conn) {
		line := make([]byte, len("CONNECT 7\n"))
		io.ReadFull(conn, line)
		if tries.Add(1) < 3 || string(line) != "CONNECT 7\n" {
			return
		}
		io.WriteString(conn, "OK 1\nhello")
	})
	conn, err := dialVsock(t.Context(), socket, 7, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if text, err := io.ReadAll(conn); string(text) != "hello" || err != nil {
		t.Errorf("the stream says %q, %v", text, err)
	}
	if n := tries.Load(); n != 3 {
		t.Errorf("it was asked %d times", n)
	}
}

// TestADialEnds with its context, with the VM, or with an invalid answer.
func TestADialEnds(t *testing.T) {
	short, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	if _, err := dialVsock(short, "/nonexistent/v.sock", 1, false, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a socket the error is %v", err)
	}
	ended := make(chan struct{})
	close(ended)
	if _, err := dialVsock(t.Context(), "/nonexistent/v.sock", 1, false, ended); err == nil ||
		!strings.Contains(err.Error(), "has ended") {
		t.Errorf("of a VM that has ended the error is %v", err)
	}
	wrong := answering(t, "HTTP/1.1 400\n")
	if _, err := dialVsock(t.Context(), wrong, 1, false, nil); err == nil ||
		!strings.Contains(err.Error(), "answered CONNECT") {
		t.Errorf("of something else the error is %v", err)
	}
}

// TestAConnectThatIsLostIsSentAgain: what is sent just when a guest goes on may be lost.
func TestAConnectThatIsLostIsSentAgain(t *testing.T) {
	var tries atomic.Int32
	socket := serving(t, func(conn net.Conn) {
		io.ReadFull(conn, make([]byte, len("CONNECT 7\n")))
		if tries.Add(1) == 1 {
			io.Copy(io.Discard, conn) // says nothing until the other end gives up
			return
		}
		io.WriteString(conn, "OK 1\n")
	})
	conn, err := dialVsock(t.Context(), socket, 7, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestADeadVsockIsToldAsOne: the guest has answered before and is now silent.
func TestADeadVsockIsToldAsOne(t *testing.T) {
	socket := serving(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	start := time.Now()
	_, err := dialVsock(t.Context(), socket, 1, true, nil)
	if !errors.Is(err, errVsockDead) {
		t.Errorf("after %s the error is %v", time.Since(start), err)
	}
}

// FuzzHandshake: every answer of the VMM is understood or refused, and no byte after the line is
// read.
func FuzzHandshake(f *testing.F) {
	for _, seed := range []string{"OK 1\n", "OK 1073741824\nrest", "", "OK", "\n", "OK \n", "OK 4294967296\n",
		strings.Repeat("O", 100)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		err := readHandshake(r)
		taken := len(data) - r.Len()
		if taken > maxHandshake {
			t.Fatalf("%d bytes were taken", taken)
		}
		if err == nil && (data[taken-1] != '\n' || !bytes.HasPrefix(data, []byte("OK "))) {
			t.Fatalf("%q passes for an answer", data[:taken])
		}
	})
}
