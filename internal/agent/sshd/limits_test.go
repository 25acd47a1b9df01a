package sshd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// TestSSHChannelsAreBounded checks that a connection has at most maxChannels channels, and that a
// new one is possible when one ends.
func TestSSHChannelsAreBounded(t *testing.T) {
	g := startSSH(t)
	c := g.client(t, banger.SSH{})
	var open []ssh.Channel
	refused := 0
	for range 10_000 {
		channel, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			refused++
			continue
		}
		go ssh.DiscardRequests(requests)
		open = append(open, channel)
	}
	if len(open) != maxChannels || refused != 10_000-maxChannels {
		t.Fatalf("%d are open and %d were refused", len(open), refused)
	}
	open[0].Close()
	agenttest.Await(t, "a place is free", func() bool {
		s, err := c.NewSession()
		if err == nil {
			s.Close()
		}
		return err == nil
	})
	for kind := range map[string]bool{"x11": true, "tun@openssh.com": true, "": true} {
		if _, _, err := c.OpenChannel(kind, nil); err == nil {
			t.Errorf("channel %q was opened", kind)
		}
	}
	if res := g.Run(t, agenttest.Shell("echo well")).Finish(); string(res.Stdout) != "well\n" {
		t.Errorf("an exec says %q", res.Stdout)
	}
}

// TestSSHHostileClients checks that a client that does not speak SSH ends only its own connection,
// and that a guest has at most maxConnections connections.
func TestSSHHostileClients(t *testing.T) {
	g := startSSH(t)
	for name, garbage := range map[string][]byte{
		"nothing": {}, "noise": agenttest.Noise(100_000), "another protocol": []byte("GET / HTTP/1.1\r\n\r\n"),
		"a version and noise": append([]byte("SSH-2.0-x\r\n"), agenttest.Noise(100_000)...),
		"an endless version":  bytes.Repeat([]byte("x"), 100_000),
		"a packet of 4 GiB":   append([]byte("SSH-2.0-x\r\n"), 0xff, 0xff, 0xff, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			conn := g.stream(t, banger.SSH{})
			go func() { // may be refused in the middle
				conn.Write(garbage)
				conn.(interface{ CloseWrite() error }).CloseWrite()
			}()
			conn.SetReadDeadline(time.Now().Add(processtest.Patience))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
		})
	}
	var open []net.Conn
	request := banger.SSH{Keys: []string{line(g.signer.PublicKey())}}
	agenttest.Await(t, "those before are gone", func() bool {
		for len(open) < maxConnections {
			conn, err := g.SSH(processtest.WithPatience(t), request)
			if err != nil {
				return false
			}
			open = append(open, conn)
		}
		return true
	})
	if _, err := g.SSH(processtest.WithPatience(t), request); banger.CodeOf(err) != banger.CodeUnavailable {
		t.Errorf("one more is answered with %v", err)
	}
	open[0].Close()
	agenttest.Await(t, "a place is free", func() bool {
		conn, err := g.SSH(context.Background(), request)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	for _, conn := range open {
		conn.Close()
	}
}

// TestSplitWords checks how a command line is split into words if the image has no shell.
func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"": {}, "  ": {}, "a": {"a"}, " a  b\tc\n": {"a", "b", "c"}, `'a b' "c d"`: {"a b", "c d"}, `a'b'"c"`: {"abc"},
		`''`: {""}, `a\ b`: {"a b"}, `'a\b'`: {`a\b`}, `"a\"b"`: {`a"b`}, `'open`: {"open"}, `end\`: {`end\`},
		"$HOME;x": {"$HOME;x"},
	} {
		if got := splitWords(line); strings.Join(got, "\x00") != strings.Join(want, "\x00") || len(got) != len(want) {
			t.Errorf("%q is split into %q", line, got)
		}
	}
}

// serveOne starts a server in this process, for one stream.
func serveOne(t *testing.T, limit time.Duration) (g *sshGuest, served chan struct{}) {
	host, hostSigner := newKey(t)
	_, signer := newKey(t)
	s := New(nil) // no test of this server starts a command
	s.handshake = limit
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	served = make(chan struct{})
	go func() {
		defer close(served)
		defer ends[1].Close()
		_, payload, err := frame.NewReader(ends[1]).Next()
		var r guest.Request
		if err == nil {
			err = json.Unmarshal(payload, &r)
		}
		if err != nil {
			t.Error(err)
			return
		}
		c, err := s.Open(r.SSH, keyText(t, host))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		frame.WriteJSON(ends[1], frame.Response, guest.Info{})
		c.Serve(ends[1])
	}()
	g = &sshGuest{Agent: &agenttest.Agent{}, hostKey: hostSigner.PublicKey(), signer: signer}
	g.Dial = func(context.Context) (net.Conn, error) { return ends[0], nil }
	return g, served
}

// TestSSHHandshakeIsLimited checks that the connection of a client that does not log in in time
// ends.
func TestSSHHandshakeIsLimited(t *testing.T) {
	g, served := serveOne(t, 10*time.Millisecond)
	conn := g.stream(t, banger.SSH{})
	agenttest.Within(t, "the server leaves", served)
	if said, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(said, []byte("SSH-2.0-banger\r\n")) {
		t.Errorf("it says %q, %v", said, err)
	}
}

// TestSSHLeavesNothing checks that nothing outlives a connection: no goroutine, listener or file.
func TestSSHLeavesNothing(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	g, served := serveOne(t, handshakeLimit)
	c := g.client(t, banger.SSH{ForwardAgent: true})
	far, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	near, err := c.Dial("tcp", l.Addr().String()) // nobody reads or ends it
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.Dial("tcp", far.Addr().String()) // nobody accepts it
	if err != nil {
		t.Fatal(err)
	}
	idle := newSession(t, c)
	if err := sshagent.RequestAgentForwarding(idle); err != nil {
		t.Fatal(err)
	}
	c.Close()
	agenttest.Within(t, "the server is done", served)
	for _, closer := range []io.Closer{near, back, l, far, idle} {
		closer.Close()
	}
	goleak.VerifyNone(t, ignore)
	if left, _ := filepath.Glob("/run/banger-ssh-*"); os.Geteuid() == 0 && len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
