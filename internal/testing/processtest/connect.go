package processtest

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience bounds every wait of a test. No wait comes near it, unless the test fails. In an emulated guest two hundred
// commands take longer; there BANGER_TEST_PATIENCE is "5m".
var Patience = patience()

func patience() time.Duration {
	longer := os.Getenv("BANGER_TEST_PATIENCE")
	if longer == "" {
		return 30 * time.Second
	}
	d, err := time.ParseDuration(longer)
	if err != nil {
		panic("BANGER_TEST_PATIENCE: " + err.Error())
	}
	return d
}

// WithPatience returns a context that ends after Patience, or with the test.
func WithPatience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// SocketPair returns the two ends of a stream socket, which has a buffer. They are closed with the test.
func SocketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}
