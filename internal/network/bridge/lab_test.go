package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"banger/internal/ipaddr"
	"banger/internal/network"
	"banger/internal/testing/networktest"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"banger/internal/notation"
)

func TestMain(m *testing.M) { networktest.Main(m, false) }

// place is a network namespace of a test.
type place struct {
	t  *testing.T
	ns *os.File
	nl *netlink.Handle
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(int(p.ns.Fd())), unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	p.nl = h
	t.Cleanup(func() { h.Close(); p.ns.Close() })
	p.up("lo")
	return p
}

// do runs f on a thread in the place.
func (p *place) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) link(name string) netlink.Link {
	p.t.Helper()
	l, err := p.nl.LinkByName(name)
	p.must(err)
	return l
}

func (p *place) up(name string, addrs ...string) {
	p.t.Helper()
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		p.must(err)
		p.must(p.nl.AddrAdd(p.link(name), addr))
	}
	p.must(p.nl.LinkSetUp(p.link(name)))
}

func (p *place) route(dst, via string) {
	p.t.Helper()
	_, to, err := net.ParseCIDR(dst)
	p.must(err)
	p.must(p.nl.RouteAdd(&netlink.Route{Dst: to, Gw: net.ParseIP(via)}))
}

// serve echoes TCP and UDP on a port, and returns a channel with the senders of datagrams.
func (p *place) serve(port int) <-chan netip.AddrPort {
	p.t.Helper()
	from := make(chan netip.AddrPort, 1<<16)
	p.must(p.do(func() error {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
		if err != nil {
			return err
		}
		u, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		ctx, stop := context.WithCancel(context.Background())
		p.t.Cleanup(func() { stop(); l.Close(); u.Close(); wg.Wait() })
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				context.AfterFunc(ctx, func() { c.Close() })
				wg.Go(func() { io.Copy(c, c); c.Close() })
			}
		})
		wg.Go(func() {
			buf := make([]byte, 2048)
			for {
				n, a, err := u.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				select {
				case from <- a:
				default:
				}
				_, _ = u.WriteToUDPAddrPort(buf[:n], a)
			}
		})
		return nil
	}))
	return from
}

func (p *place) dial(network, to string) (c net.Conn, err error) {
	err = p.do(func() error {
		c, err = (&net.Dialer{Timeout: 700 * time.Millisecond}).Dial(network, to)
		return err
	})
	return c, err
}

// echo reports whether what it sends comes back.
func echo(c net.Conn, wait time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}

func (p *place) reaches(network, to string) bool {
	c, err := p.dial(network, to)
	if err != nil {
		return false
	}
	defer c.Close()
	return echo(c, 700*time.Millisecond) == nil
}

// openTap opens a tap of the place, which is made unless it is there.
func (p *place) openTap(name string) *os.File {
	p.t.Helper()
	var f *os.File
	p.must(p.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		f = os.NewFile(uintptr(fd), name)
		return err
	}))
	p.t.Cleanup(func() { f.Close() })
	return f
}

// lab is a host with an uplink to the Internet, and a Bridge.
type lab struct {
	*testing.T
	host, outside *place
	bridge        *Bridge
	config        Config
	saved         string
}

func newLab(t *testing.T, networks ...Network) *lab {
	t.Helper()
	l := &lab{T: t, host: newPlace(t), outside: newPlace(t), saved: filepath.Join(t.TempDir(), "found")}
	l.config.Networks = networks
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "uplink1",
		PeerNamespace: netlink.NsFd(int(l.outside.ns.Fd()))}
	l.host.must(l.host.nl.LinkAdd(veth))
	l.host.up("uplink", "9.9.9.1/24")
	l.outside.up("uplink1", "9.9.9.2/24")
	l.outside.up("lo", "8.8.8.8/32", "8.8.4.4/32", "10.77.0.1/32", "169.254.169.254/32")
	l.host.route("0.0.0.0/0", "9.9.9.2")
	l.open()
	return l
}

// open makes a new Bridge, as a new daemon would.
func (l *lab) open() {
	l.Helper()
	l.host.must(l.host.do(func() (err error) {
		l.bridge, err = Open(l.saved)
		return err
	}))
	l.Cleanup(l.bridge.Close)
}

func (l *lab) apply() {
	l.Helper()
	if err := l.bridge.Apply(context.Background(), l.config); err != nil {
		l.Fatal(err)
	}
}

// watch runs Watch until the test ends.
func (l *lab) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.bridge.Watch(ctx, func(err error) { l.Log(err) })
	}()
	l.Cleanup(func() { cancel(); <-done })
}

func (l *lab) port(n int, at int, rules string) Port {
	l.Helper()
	p, err := notation.ParsePolicy(rules)
	if err != nil {
		l.Fatal(err)
	}
	net := l.config.Networks[at]
	id := fmt.Sprintf("%012x", n)
	return Port{ID: id, Network: net.Name, Address: ipaddr.FromNumber(ipaddr.Number(net.Subnet.Addr()) + 1 + uint32(n)),
		MAC: network.MAC(id), UID: uint32(os.Getuid()), Policy: p}
}

// boot returns a VM: a place whose eth0 is connected to the tap of p.
func (l *lab) boot(p Port) *place {
	l.Helper()
	vm := newPlace(l.T)
	inner, outer := vm.openTap("eth0"), l.host.openTap(p.Tap())
	vm.must(vm.nl.LinkSetHardwareAddr(vm.link("eth0"), p.mac()))
	n := l.config.network(p.Network)
	vm.up("eth0", netip.PrefixFrom(p.Address, n.Subnet.Bits()).String())
	vm.route("0.0.0.0/0", n.Gateway().String())
	var wg sync.WaitGroup
	for _, pair := range [][2]*os.File{{inner, outer}, {outer, inner}} {
		wg.Go(func() {
			buf := make([]byte, 1<<16)
			for {
				n, err := pair[0].Read(buf)
				if err == nil {
					_, err = pair[1].Write(buf[:n])
				}
				if errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
					return
				}
			}
		})
	}
	l.Cleanup(func() { inner.Close(); outer.Close(); wg.Wait() })
	vm.must(vm.do(func() error { // until the gateway answers, be it that nobody listens
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(n.Gateway(), 53).String(), 10*time.Second)
		if err == nil {
			c.Close()
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil
		}
		return err
	}))
	return vm
}

func defaultNet() Network {
	return Network{Name: "default", Subnet: netip.MustParsePrefix("172.30.1.0/24"), Isolated: true}
}

func namedNet() Network {
	return Network{Name: "team", Subnet: netip.MustParsePrefix("172.30.2.0/24")}
}
