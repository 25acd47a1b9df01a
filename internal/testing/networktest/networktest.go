// Package networktest has what the tests of networks share: namespaces, an Internet behind the host
// in which every address answers, and a table of the destinations that each policy allows.
//
// It must not know of the packages that it tests, so that their own tests can use it.
package networktest

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	"banger/internal/testing/processtest"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// Main runs all tests of a package in a new network namespace, as root there; for an ordinary user
// that needs a user namespace as well. With bare, the process stays in its namespace, because it
// has its own or has no rights in it.
func Main(m *testing.M, bare bool) {
	processtest.InNamespace()
	runtime.LockOSThread() // no test changes the namespace of the first thread
	if !bare {
		Check(nil, linkUp("lo"))
		Check(nil, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0))
	}
	goleak.VerifyTestMain(m)
}

// Check ends the test if err is not nil. Without a test it panics.
func Check(t *testing.T, err error) {
	if err == nil {
		return
	}
	if t == nil {
		panic(err)
	}
	t.Helper()
	t.Fatal(err)
}

// Namespace is a network namespace.
type Namespace struct{ File *os.File }

// NewNamespace makes a namespace whose lo is up. It is there until the test ends.
func NewNamespace(t *testing.T) *Namespace {
	t.Helper()
	n := &Namespace{}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.File, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	Check(t, <-done)
	t.Cleanup(func() { n.File.Close() })
	n.In(t, func() error { return linkUp("lo") })
	return n
}

// In runs f in the namespace; sockets that it opens stay there.
func (n *Namespace) In(t *testing.T, f func() error) {
	t.Helper()
	Check(t, n.Try(f))
}

// Try is In that returns the error of f.
func (n *Namespace) Try(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := unix.Setns(int(n.File.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// linkUp sets a link up in the calling thread's namespace.
func linkUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// SetUp gives a link an address, sets it up, and unless gateway is "" makes it the default route.
func SetUp(name, address, gateway string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l)); err != nil || gateway == "" {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
}

// OpenTap opens a tap of the calling thread's namespace, which it makes unless it is there.
func OpenTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}

// PumpFrames carries frames between two taps until the test ends, as a VMM does between a tap and
// its guest's device. It owns both.
func PumpFrames(t *testing.T, a, b *os.File) {
	var wg sync.WaitGroup
	for _, pair := range [][2]*os.File{{a, b}, {b, a}} {
		wg.Go(func() {
			buf := make([]byte, 1<<17)
			for {
				n, err := pair[0].Read(buf)
				if err != nil {
					return
				}
				_, err = pair[1].Write(buf[:n])
				if err != nil && !errors.Is(err, unix.EIO) { // EIO: its link is not up yet
					return
				}
			}
		})
	}
	t.Cleanup(func() { a.Close(); b.Close(); wg.Wait() })
}
