package network

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"banger/internal/testing/networktest"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testing/processtest"
)

func TestMain(m *testing.M) { networktest.Main(m, false) }

// TestAForwardRestsWithoutDescriptors lets a process of no free descriptor get a connection. It
// must not spin, and must take the connection when descriptors are free again.
func TestAForwardRestsWithoutDescriptors(t *testing.T) {
	g := NewDirectGate(netip.MustParseAddr("127.0.0.1"), slog.New(slog.DiscardHandler))
	defer g.Close()
	f := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: 9}
	file, err := Listen(f)
	if err != nil {
		t.Fatal(err)
	}
	at, err := Bound(file)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan bool, 1)
	if err := g.Publish(f, file, nil, func(_, _ netip.AddrPort) bool { accepted <- true; return false }); err != nil {
		t.Fatal(err)
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &have) }
	defer restore()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: have.Max}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(client, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	const window = 500 * time.Millisecond
	before := processtest.CPUTime(t)
	<-time.After(window)                                          // in which CPU time is measured
	if used := processtest.CPUTime(t) - before; used > window/2 { // one that spins takes most of a CPU
		t.Errorf("the process uses %s of CPU in %s", used, window)
	}
	restore()
	select {
	case <-accepted:
	case <-time.After(10 * time.Second):
		t.Error("nobody accepts the connection")
	}
}
