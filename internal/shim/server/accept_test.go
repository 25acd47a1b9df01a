package server

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestCallsGoOnAfterDescriptorsRanOut connects to a shim that has no free descriptor. The shim must accept the
// connection when it has descriptors again.
func TestCallsGoOnAfterDescriptorsRanOut(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := listenControl(socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{places: newPlaces(), daemon: uint32(os.Geteuid())}
	ended := make(chan struct{})
	go func() { s.accept(t.Context(), ln); close(ended) }()
	client, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &have) }
	defer restore()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: have.Max}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(client, &syscall.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Error("the shim accepts no more")
	case <-time.After(300 * time.Millisecond): // meanwhile the shim fails to accept
	}
	restore()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("CONNECT no port\n")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a call ends with %v", err)
	}
	conn.Close()
	ln.Close()
	<-ended
	syscall.Close(client)
	s.wg.Wait()
}
