package networktest

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The host's own addresses in the tests: one of the Internet, one of a local network.
const (
	HostPublic  = "5.5.5.2"
	HostPrivate = "192.168.77.2"
	HostSecond  = "5.5.5.3" // in the network of HostPublic, of which it is not the source
)

// Internet is a namespace behind the host's default route in which every address
// answers: to connections and datagrams with what it calls itself, and to pings.
type Internet struct {
	*Namespace
	mu   sync.Mutex
	seen map[string]bool // "tcp 1.2.3.4"
}

// ServeOwn answers on port 80 of every address of the calling thread's namespace.
func ServeOwn(t *testing.T, name string) error {
	return (&Internet{seen: map[string]bool{}}).serve(t, name)
}

// NewInternet makes the Internet of the calling thread's namespace, the host.
func NewInternet(t *testing.T) *Internet {
	t.Helper()
	i := &Internet{Namespace: NewNamespace(t), seen: map[string]bool{}}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: "wan"},
		PeerName:      "host",
		PeerNamespace: netlink.NsFd(i.File.Fd()),
	}
	Check(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { netlink.LinkDel(veth) })
	i.In(t, func() error {
		if err := SetUp("host", "5.5.5.1/24", ""); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		return netlink.RouteAdd(&netlink.Route{
			LinkIndex: lo.Attrs().Index,
			Dst:       all,
			Type:      unix.RTN_LOCAL,
			Scope:     netlink.SCOPE_HOST,
			Table:     unix.RT_TABLE_MAIN,
		})
	})
	Check(t, SetUp("wan", HostPublic+"/24", "5.5.5.1"))
	for _, address := range []string{HostPrivate + "/24", HostSecond + "/24"} {
		a, err := netlink.ParseAddr(address)
		Check(t, err)
		Check(t, netlink.AddrAdd(veth, a))
	}
	i.In(t, func() error { return i.serve(t, "the internet") })
	Check(t, i.serve(t, "the host"))
	return i
}

// serve answers on port 80 of every address of the namespace that it is called in.
func (i *Internet) serve(t *testing.T, name string) error {
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

func (i *Internet) note(proto string, at netip.Addr) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen[proto+" "+at.Unmap().String()] = true
}

// Was reports whether an address was reached by a protocol: "tcp 1.2.3.4".
func (i *Internet) Was(what string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen[what]
}
