package dns

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"banger/internal/testing/processtest"
)

// TestTheServerRestsWithoutDescriptors connects to a server whose process has no free descriptor.
// The server must not spin, and must answer when it has descriptors again.
func TestTheServerRestsWithoutDescriptors(t *testing.T) {
	at := netip.MustParseAddrPort(start(t))
	client, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(client)
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &have) }
	defer restore()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: have.Max}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(client, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	const window = 500 * time.Millisecond
	before := processtest.CPUTime(t)
	<-time.After(window) // in which CPU time is measured
	if used := processtest.CPUTime(t) - before; used > window/10 {
		t.Errorf("the process uses %s of CPU in %s", used, window)
	}
	restore()
	c := dns.Client{Net: "tcp", Timeout: 10 * time.Second}
	if _, _, err := c.Exchange(new(dns.Msg).SetQuestion(Self+".", dns.TypeA), at.String()); err != nil {
		t.Error(err)
	}
}
