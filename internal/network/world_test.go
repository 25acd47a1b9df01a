package network_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/network"
)

// patience bounds every wait; none comes near it unless it fails.
const patience = 30 * time.Second

const inNamespace = "BANGER_TEST_NAMESPACE"

// TestMain runs all tests in a network namespace of their own, in which they are
// root: an ordinary user's in a user namespace too.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		runtime.LockOSThread()        // no test changes the namespace of the first thread
		if os.Getenv(tapRole) != "" { // it has a namespace of its own, or no rights in ours
			goleak.VerifyTestMain(m)
			return
		}
		check(nil, linkUp("lo"))
		check(nil, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0))
		goleak.VerifyTestMain(m)
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // the parent-death signal is bound to it
	if err := cmd.Run(); err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(e.ExitCode())
		}
		panic(err)
	}
}

func check(t *testing.T, err error) {
	if err == nil {
		return
	}
	if t == nil {
		panic(err)
	}
	t.Helper()
	t.Fatal(err)
}

// netns is a network namespace.
type netns struct{ f *os.File }

func newNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.f, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	check(t, <-done)
	t.Cleanup(func() { n.f.Close() })
	n.in(t, func() error { return linkUp("lo") })
	return n
}

// in runs f in the namespace; sockets that it opens stay there.
func (n *netns) in(t *testing.T, f func() error) {
	t.Helper()
	check(t, n.try(f))
}

func (n *netns) try(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func linkUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func setUp(name, address, gateway string) error {
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

// The host's own addresses in the tests: one of the Internet, one of a local network.
const (
	hostPublic  = "5.5.5.2"
	hostPrivate = "192.168.77.2"
	hostSecond  = "5.5.5.3" // in the network of hostPublic, of which it is not the source
)

// internet is a namespace behind the host's default route in which every address
// answers: to connections and datagrams with what it calls itself, and to pings.
type internet struct {
	*netns
	mu   sync.Mutex
	seen map[string]bool // "tcp 1.2.3.4"
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	i := &internet{netns: newNetns(t), seen: map[string]bool{}}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wan"}, PeerName: "host", PeerNamespace: netlink.NsFd(i.f.Fd())}
	check(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { netlink.LinkDel(veth) })
	i.in(t, func() error {
		if err := setUp("host", "5.5.5.1/24", ""); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_MAIN})
	})
	check(t, setUp("wan", hostPublic+"/24", "5.5.5.1"))
	for _, address := range []string{hostPrivate + "/24", hostSecond + "/24"} {
		a, err := netlink.ParseAddr(address)
		check(t, err)
		check(t, netlink.AddrAdd(veth, a))
	}
	i.in(t, func() error { return i.serve(t, "the internet") })
	check(t, i.serve(t, "the host"))
	return i
}

// serve answers on port 80 of every address of the namespace that it is called in.
func (i *internet) serve(t *testing.T, name string) error {
	ln, err := net.Listen("tcp4", "0.0.0.0:80")
	if err != nil {
		return err
	}
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 80})
	if err != nil {
		ln.Close()
		return err
	}
	raw, err := pc.SyscallConn()
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			i.note("tcp", conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr())
			fmt.Fprintln(conn, name)
			conn.Close()
		}
	})
	wg.Go(func() {
		buf, oob := make([]byte, 65536), make([]byte, 64)
		for {
			n, oobn, _, from, err := pc.ReadMsgUDP(buf, oob)
			if err != nil {
				return
			}
			if to := oob[unix.CmsgLen(8):oobn]; len(to) >= 4 { // ipi_addr of struct in_pktinfo (ip(7))
				i.note("udp", netip.AddrFrom4([4]byte(to[:4])))
			}
			pc.WriteMsgUDP(buf[:n], oob[:oobn], from) // from the address that it came to
		}
	})
	t.Cleanup(func() { ln.Close(); pc.Close(); wg.Wait() })
	return nil
}

func (i *internet) note(proto string, at netip.Addr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen[proto+" "+at.Unmap().String()] = true
}

func (i *internet) was(what string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen[what]
}

// guest is a namespace whose one NIC is a tap, with a stack of ours at its other
// end: a real kernel sends real packets.
type guest struct {
	*netns
	stack *network.Stack
	zone  *zone

	mu      sync.Mutex
	denials []banger.Denial
	told    chan struct{} // gets a token per denial
}

const guestID = "0123456789ab"

func newGuest(t *testing.T, policy string) *guest {
	t.Helper()
	p, err := banger.ParsePolicy(policy)
	check(t, err)
	g := &guest{netns: newNetns(t), zone: &zone{}, told: make(chan struct{}, 1000)}
	var tap *os.File
	g.in(t, func() (err error) {
		tap, err = openTap("eth0")
		return err
	})
	g.stack, err = network.NewStack(network.NewTap(tap), network.Config{MAC: network.MAC(guestID), Guard: network.NewGuard(p, g.denied),
		Lookup: g.zone.exchange, Log: slog.New(slog.DiscardHandler)})
	check(t, err)
	t.Cleanup(func() { g.stack.Close() })
	g.in(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		mac, _ := net.ParseMAC(network.MAC(guestID))
		return errors.Join(netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetMTU(l, network.UserMTU),
			os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0),
			setUp("eth0", network.UserGuest.String()+"/24", network.UserGateway.String()))
	})
	return g
}

func openTap(name string) (*os.File, error) {
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

func (g *guest) denied(d banger.Denial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.denials = append(g.denials, d)
	select {
	case g.told <- struct{}{}:
	default:
	}
}

// awaitDenial returns the first denial that fits.
func (g *guest) awaitDenial(t *testing.T, fits func(banger.Denial) bool) banger.Denial {
	t.Helper()
	for timeout := time.After(patience); ; {
		g.mu.Lock()
		at := slices.IndexFunc(g.denials, fits)
		g.mu.Unlock()
		if at >= 0 {
			return g.denials[at]
		}
		select {
		case <-g.told:
		case <-timeout:
			t.Fatalf("no such denial among %+v", g.denials)
		}
	}
}

// dial connects from the guest.
func (g *guest) dial(proto, to string) (conn net.Conn, err error) {
	err = g.try(func() error {
		d := net.Dialer{Timeout: patience}
		conn, err = d.Dial(proto+"4", to)
		return err
	})
	return conn, err
}

// listen opens a socket in the guest.
func (g *guest) listen(t *testing.T, at string) net.Listener {
	t.Helper()
	var ln net.Listener
	g.in(t, func() (err error) {
		ln, err = net.Listen("tcp4", at)
		return err
	})
	t.Cleanup(func() { ln.Close() })
	return ln
}

// zone is the DNS of the tests.
type zone struct {
	mu      sync.Mutex
	records map[string][]string
}

// set gives a name records in the format of zone files, without their owner:
// "60 A 8.8.8.8"; "@other. 60 A 8.8.8.8" is one of another owner.
func (z *zone) set(owner string, records ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.records == nil {
		z.records = map[string][]string{}
	}
	z.records[owner+"."] = records
}

// exchange answers with all records of a name and of its aliases.
func (z *zone) exchange(_ context.Context, query []byte, _ bool) ([]byte, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	var q dns.Msg
	if err := q.Unpack(query); err != nil {
		return nil, err
	}
	r := new(dns.Msg).SetReply(&q)
	name, seen := dns.CanonicalName(q.Question[0].Name), map[string]bool{}
	if z.records[name] == nil {
		r.Rcode = dns.RcodeNameError
	}
	for name != "" && !seen[name] {
		seen[name] = true
		next := ""
		for _, text := range z.records[name] {
			foreign, ok := strings.CutPrefix(text, "@")
			if !ok {
				foreign = name + " " + text
			}
			rr, err := dns.NewRR(foreign)
			if err != nil {
				return nil, err
			}
			if c, ok := rr.(*dns.CNAME); ok {
				next = c.Target
			}
			r.Answer = append(r.Answer, rr)
		}
		name = next
	}
	return r.Pack()
}

// lookup asks the guest's resolver for addresses.
func (g *guest) lookup(t *testing.T, name string) (addresses []string, rcode int) {
	t.Helper()
	r := g.ask(t, "udp", name, dns.TypeA)
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			addresses = append(addresses, a.A.String())
		}
	}
	return addresses, r.Rcode
}

func (g *guest) ask(t *testing.T, transport, name string, qtype uint16) *dns.Msg {
	t.Helper()
	conn, err := g.dial(transport, network.UserDNS.String()+":53")
	check(t, err)
	defer conn.Close()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	c := dns.Client{Net: transport, Timeout: patience}
	r, _, err := c.ExchangeWithConn(q, &dns.Conn{Conn: conn, UDPSize: 4096})
	check(t, err)
	return r
}
