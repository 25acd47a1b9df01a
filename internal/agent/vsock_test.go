package agent

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mdlayher/vsock"

	"banger/internal/guest"
)

// TestOnlyTheHostIsServed by vsock: a process of the guest, which reaches the agent by the
// kernel's loopback, gets nothing.
func TestOnlyTheHostIsServed(t *testing.T) {
	ln := &connections{next: make(chan net.Conn)}
	done := make(chan error, 1)
	go func() { done <- serveVsock(ln, newServer(hostDuties{})) }()
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
	s := newServer(hostDuties{})
	good := &guest.Config{Hostname: "x", Seed: make([]byte, guest.MinSeed)}
	if err := s.restored(good); err == nil {
		t.Error("a guest that was never configured is restored")
	}
	if err := s.configure(&guest.Config{Hostname: "first", SSHHostKey: "old"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*guest.Config{
		"nothing": nil, "no seed": {}, "a short seed": {Seed: make([]byte, guest.MinSeed-1)}, "a seed too long": {Seed: make([]byte, guest.MaxSeed+1)},
	} {
		if err := s.restored(c); err == nil {
			t.Errorf("with %s it is restored", name)
		}
	}
	if err := s.restored(good); err != nil || s.config.Hostname != "x" || s.config.SSHHostKey != "" {
		t.Errorf("it is %+v, %v", s.config, err)
	}
}

// connections are a listener of given ones.
type connections struct{ next chan net.Conn }

func (c *connections) Accept() (net.Conn, error) {
	if conn, ok := <-c.next; ok {
		return conn, nil
	}
	return nil, io.EOF
}
func (c *connections) Close() error   { return nil }
func (c *connections) Addr() net.Addr { return &vsock.Addr{} }

// peered is a connection with a peer of our choice.
type peered struct {
	net.Conn
	peer net.Addr
}

func (p peered) RemoteAddr() net.Addr { return p.peer }
