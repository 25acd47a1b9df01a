package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// TestOnlyTheHostIsServed by vsock: a process of the guest, which reaches the agent by the
// kernel's loopback, gets nothing.
func TestOnlyTheHostIsServed(t *testing.T) {
	ln := &connections{next: make(chan net.Conn)}
	done := make(chan error, 1)
	go func() { done <- serveVsock(ln, newServer(newHostSystem(), nil)) }()
	defer func() {
		close(ln.next)
		<-done
	}()
	for name, c := range map[string]struct {
		peer   net.Addr
		served bool
	}{
		"the host":          {&vsock.Addr{ContextID: vsock.Host, Port: 1 << 30}, true},
		"the guest itself":  {&vsock.Addr{ContextID: 3, Port: 1024}, false},
		"the loopback":      {&vsock.Addr{ContextID: vsock.Local, Port: 1024}, false},
		"the hypervisor":    {&vsock.Addr{ContextID: vsock.Hypervisor, Port: 1024}, false},
		"somebody by a TCP": {&net.TCPAddr{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			ln.next <- peered{theirs, c.peer}
			ours.SetDeadline(time.Now().Add(10 * time.Second))
			if !c.served {
				if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("it is not closed: %v", err)
				}
				return
			}
			client := guest.Client{Dial: func(context.Context) (net.Conn, error) { return ours, nil }}
			if info, err := client.Ping(t.Context()); err != nil || info.Version != guest.Version {
				t.Errorf("the agent answers %+v, %v", info, err)
			}
		})
	}
}

// TestRestoredIsChecked before anything is changed.
func TestRestoredIsChecked(t *testing.T) {
	s := newServer(newHostSystem(), nil)
	good := &guest.Config{Hostname: "x", Seed: make([]byte, guest.MinSeed)}
	if err := s.restored(good); err == nil {
		t.Error("a guest that was never configured is restored")
	}
	if err := s.configure(&guest.Config{Hostname: "first", SSHHostKey: "old"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*guest.Config{
		"nothing": nil, "no seed": {}, "a short seed": {Seed: make([]byte, guest.MinSeed-1)},
		"a seed too long": {Seed: make([]byte, guest.MaxSeed+1)},
	} {
		if err := s.restored(c); err == nil {
			t.Errorf("with %s it is restored", name)
		}
	}
	if err := s.restored(good); err != nil || s.config.Hostname != "x" || s.config.SSHHostKey != "" {
		t.Errorf("it is %+v, %v", s.config, err)
	}
}

// connections is a listener that returns given connections.
type connections struct{ next chan net.Conn }

func (c *connections) Accept() (net.Conn, error) {
	if conn, ok := <-c.next; ok {
		return conn, nil
	}
	return nil, io.EOF
}
func (c *connections) Close() error   { return nil }
func (c *connections) Addr() net.Addr { return &vsock.Addr{} }

// peered is a connection with a chosen peer.
type peered struct {
	net.Conn
	peer net.Addr
}

func (p peered) RemoteAddr() net.Addr { return p.peer }

// inGuest reports whether the test runs in a guest, where there is no Go.
const inGuest = "BANGER_TEST_VSOCK"

// TestVsockOfAKernel is run in a guest, by e2e/vsock: hosts need not have the loopback of
// vsock, and Debian's kernel has it. A real listener serves real connections whole, and
// those that do not come from the host not at all.
func TestVsockOfAKernel(t *testing.T) {
	if os.Getenv(inGuest) == "" {
		return // e2e/vsock runs it
	}
	const port = 5000
	ln, err := vsockOn(port)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(newHostSystem(), nil)
	go s.commands.Run()
	go serveVsock(ln, s)
	conn, err := vsock.Dial(vsock.Local, port, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the loopback is served: %d bytes, %v", n, err)
	}
	conn.Close()

	ln, err = vsockOn(port + 1)
	if err != nil {
		t.Fatal(err)
	}
	go serveVsock(fromHost{ln}, s)
	client := guest.Client{Dial: func(context.Context) (net.Conn, error) { return vsock.Dial(vsock.Local, port+1, nil) }}
	if info, err := client.Ping(t.Context()); err != nil || info.Version != guest.Version {
		t.Fatalf("the agent answers %+v, %v", info, err)
	}
	stream, err := client.Exec(t.Context(),
		banger.Exec{Args: []string{"/bin/sh", "-c", "cat | wc -c; echo $$ >&2"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	go func() { // ends with the stream
		for range 64 {
			frame.Write(stream, frame.Stdin, make([]byte, frame.MaxData))
		}
		frame.Write(stream, frame.StdinEOF, nil)
	}()
	var out []byte
	for frames := frame.NewReader(stream); ; {
		kind, payload, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		if kind == frame.Stdout {
			out = append(out, payload...)
		}
		if kind == frame.Exit {
			break
		}
	}
	if got := strings.TrimSpace(string(out)); got != fmt.Sprint(64*frame.MaxData) {
		t.Errorf("%s bytes went in", got)
	}
}

// fromHost is a listener whose connections look as if the host had made them.
type fromHost struct{ net.Listener }

func (l fromHost) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return peered{conn, &vsock.Addr{ContextID: vsock.Host}}, nil
}

// vsockOn listens on a port of the guest's vsock.
func vsockOn(port uint32) (net.Listener, error) {
	fd, err := listenVsock(port)
	if err != nil {
		return nil, err
	}
	return listenerOf(fd)
}
