package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/private"
	"banger/internal/remote"
)

// socket names the daemon in the environment of this program, when ssh runs it as banger on the far host.
const socket = "TEST_DAEMON"

// TestMain also is banger on the far host.
func TestMain(m *testing.M) {
	if path := os.Getenv(socket); path != "" && os.Args[len(os.Args)-1] == "dial-stdio" {
		fmt.Println("a shell that greets everybody")
		err := remote.Serve(context.Background(), os.Stdin, os.Stdout, func(ctx context.Context) (net.Conn, error) {
			return private.Dial(ctx, path)
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// echo is a daemon that returns what comes, with a greeting.
func echo(t *testing.T, ln net.Listener, greeting string) {
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, greeting)
				io.Copy(conn, conn)
			}()
		}
	}()
}

// ssh puts a program of that name into PATH: a shell's text that has the command line as its last argument.
func ssh(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\nfor last; do :; done\n" + text + "\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// near returns a link to this program as banger of a far host, with a daemon that echoes.
func near(t *testing.T) (link *remote.Link, said *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	ln, err := private.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, ln, "hello ")
	t.Setenv(socket, path)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else the far end takes a second to end
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	said = new(bytes.Buffer)
	link = &remote.Link{Context: remote.Context{Name: "lab", Address: "ssh://lab", Program: self}, Stderr: said}
	t.Cleanup(link.Close)
	return link, said
}

// talk sends a word, ends its side, and returns the answer.
func talk(t *testing.T, conn net.Conn, word string) string {
	t.Helper()
	io.WriteString(conn, word)
	conn.(interface{ CloseWrite() error }).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	return string(answer)
}

// TestAllConnectionsGoThroughOneSSH counts how often ssh starts. A shell that greets everybody does no harm.
func TestAllConnectionsGoThroughOneSSH(t *testing.T) {
	link, said := near(t)
	count := filepath.Join(t.TempDir(), "count")
	ssh(t, `echo >>`+count+`; exec sh -c "$last"`)
	first, err := link.Dial(t.Context())
	if err != nil {
		t.Fatal(err, said)
	}
	second, err := link.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := talk(t, second, "two") + ", " + talk(t, first, "one"); got != "hello two, hello one" {
		t.Errorf("the answers are %q", got)
	}
	link.Close() // as when the network breaks
	again, err := link.Dial(t.Context())
	if err != nil || talk(t, again, "three") != "hello three" {
		t.Errorf("a broken link is not made again: %v", err)
	}
	if starts, _ := os.ReadFile(count); string(starts) != "\n\n" {
		t.Errorf("ssh has started %d times", len(starts))
	}
}

// TestALinkThatCannotBeMadeSaysWhy, and what to do.
func TestALinkThatCannotBeMadeSaysWhy(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"no host":                 {"echo no route >&2; exit 255", "ssh lab true"},
		"no banger":               {"exit 127", "--program"},
		"a silent host that ends": {"exit 0", "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			link, _ := near(t)
			ssh(t, c.script)
			_, err := link.Dial(t.Context())
			if err == nil || !strings.Contains(fmt.Sprintf("%v %+v", err, err.(*banger.Error).Hint), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestAUserGivesUp while ssh waits for a password.
func TestAUserGivesUp(t *testing.T) {
	link, _ := near(t)
	ssh(t, "exec sleep infinity")
	ctx, giveUp := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := link.Dial(ctx); failed <- err }()
	giveUp()
	if err := <-failed; err == nil {
		t.Error("there is a connection")
	}
}

// TestAPortOfTheFarHostIsHere carries connections to a port that only the far host can reach.
func TestAPortOfTheFarHostIsHere(t *testing.T) {
	link, said := near(t)
	ssh(t, `exec sh -c "$last"`)
	far, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, far, "far ")
	here, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		link.Forward(ctx, here, uint16(far.Addr().(*net.TCPAddr).Port))
		close(over)
	}()
	for range 3 {
		conn, err := net.Dial("tcp4", here.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := talk(t, conn, "word"); got != "far word" {
			t.Errorf("the answer is %q; %s", got, said)
		}
	}
	end()
	<-over
}
