package boot

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/testing/networktest"
)

// limit is the time limit of every wait. Only a failing wait comes near it.
const limit = 10 * time.Second

// TestOldConnectionsAreReset: two network namespaces stand for a guest and for what is outside.
func TestOldConnectionsAreReset(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	inGuest, outside := networktest.NewNamespace(t), networktest.NewNamespace(t)
	eth := device(t, inGuest, "eth0", "10.9.0.2/24")
	networktest.PumpFrames(t, eth, device(t, outside, "peer0", "10.9.0.1/24"))
	bridge := device(t, inGuest, "docker0", "172.17.0.1/16")
	defer bridge.Close()

	far := listen(t, outside, "10.9.0.1:80")
	near := listen(t, inGuest, "[::]:81") // its connections are of IPv6 as the kernel sees them
	_, out := connect(t, inGuest, far, "10.9.0.1:80")
	to, _ := connect(t, outside, near, "10.9.0.2:81")
	stay := [][2]net.Conn{}
	for _, address := range []string{"127.0.0.1:81", "[::1]:81", "10.9.0.2:81"} {
		a, b := connect(t, inGuest, near, address)
		stay = append(stay, [2]net.Conn{a, b})
	}
	container := begin(t, inGuest, [4]byte{172, 17, 0, 9})
	nobody := begin(t, inGuest, [4]byte{10, 9, 0, 99})

	inGuest.In(t, func() error { return resetHere(netip.MustParsePrefix("10.9.0.0/24")) })
	for name, c := range map[string]net.Conn{"from the guest": out, "to the guest": to} {
		c.SetReadDeadline(time.Now().Add(limit))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("a connection %s ends with %v", name, err)
		}
	}
	for _, pair := range stay {
		for i, c := range pair {
			other := pair[1-i]
			c.SetDeadline(time.Now().Add(limit))
			other.SetDeadline(time.Now().Add(limit))
			_, werr := c.Write([]byte("x"))
			if _, err := other.Read(make([]byte, 1)); err != nil || werr != nil {
				t.Errorf("the connection to %s inside the guest: %v, %v", pair[1].RemoteAddr(), werr, err)
			}
		}
	}
	if err := failure(t, container); err != nil {
		t.Errorf("a connection that begins to a container: %v", err)
	}
	if err := failure(t, nobody); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("a connection that begins to the outside: %v", err)
	}
	connect(t, outside, near, "10.9.0.2:81") // it still listens
}

// device makes a device in a namespace.
func device(t *testing.T, n *networktest.Namespace, name, address string) (tap *os.File) {
	t.Helper()
	n.In(t, func() (err error) {
		if tap, err = networktest.OpenTap(name); err != nil {
			return err
		}
		return networktest.SetUp(name, address, "")
	})
	return tap
}

func listen(t *testing.T, n *networktest.Namespace, address string) (l net.Listener) {
	t.Helper()
	n.In(t, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// connect returns both ends of a new connection to a listener: the accepted one, and the other.
func connect(t *testing.T, n *networktest.Namespace, l net.Listener, address string) (accepted, dialled net.Conn) {
	t.Helper()
	n.In(t, func() (err error) {
		dialled, err = net.DialTimeout("tcp", address, limit)
		return err
	})
	l.(*net.TCPListener).SetDeadline(time.Now().Add(limit))
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		accepted.Close()
		dialled.Close()
	})
	return accepted, dialled
}

// begin begins to connect to an address that does not answer.
func begin(t *testing.T, n *networktest.Namespace, address [4]byte) (fd int) {
	t.Helper()
	n.In(t, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 1, Addr: address}); err != unix.EINPROGRESS {
			t.Errorf("connecting to %v: %v", address, err)
		}
		return nil
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// failure returns the error of a socket, nil if there is none.
func failure(t *testing.T, fd int) error {
	t.Helper()
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		t.Fatal(err)
	}
	if errno == 0 {
		return nil
	}
	return unix.Errno(errno)
}

// TestEachNamespaceIsVisitedOnce, and the thread comes back.
func TestEachNamespaceIsVisitedOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root changes namespaces")
	}
	const own = "/proc/thread-self/ns/net"
	seen := map[string]bool{}
	for _, path := range namespaces() {
		if err := inNamespace(path, func() error {
			name, err := os.Readlink(own)
			if seen[name] {
				t.Errorf("%s is visited again", name)
			}
			seen[name] = true
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	if name, err := os.Readlink(own); err != nil || !seen[name] {
		t.Errorf("the own one, %s, is not among %v: %v", name, seen, err)
	}
	if err := inNamespace("/proc/0/ns/net", func() error { return errors.New("called") }); err != nil {
		t.Errorf("one whose processes have ended gives %v", err)
	}
}
