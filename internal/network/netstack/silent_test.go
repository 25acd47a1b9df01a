package netstack_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"banger/internal/testing/networktest"
	"banger/internal/testing/processtest"

	"github.com/vishvananda/netlink"

	"banger"
	"banger/internal/network"
)

// TestConnectionsToASilentGuestEnd opens more connections to a forward than may be open, while
// the guest answers nothing. Those beyond the bound are reset at once, one whose client waits is
// reset in time, those whose clients go end with them, and then the forward works again.
func TestConnectionsToASilentGuestEnd(t *testing.T) {
	processtest.Long(t)
	const bound, beyond = 2048, 50
	needFiles(t, 2*(bound+beyond)+2000)
	g := newGuest(t, "deny")
	ln := g.listen(t, "0.0.0.0:0")
	_, at := g.publish(t, "tcp", portOf(ln), nil)
	address := func(change func(netlink.Link, *netlink.Addr) error) {
		t.Helper()
		g.In(t, func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			a, err := netlink.ParseAddr(network.UserGuest.String() + "/24")
			if err != nil {
				return err
			}
			return change(l, a)
		})
	}
	address(netlink.AddrDel)
	before := openFiles(t)
	var clients []*net.TCPConn
	refused := 0
	for range bound + beyond {
		conn, err := net.Dial("tcp4", at)
		if errors.Is(err, syscall.ECONNRESET) {
			refused++
			continue
		}
		networktest.Check(t, err)
		defer conn.Close()
		clients = append(clients, conn.(*net.TCPConn))
	}
	deadline := time.Now().Add(5 * time.Second) // half of what a handshake may take
	for _, c := range clients[min(bound, len(clients)):] {
		c.SetReadDeadline(deadline)
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
			refused++
		}
	}
	if refused != beyond {
		t.Errorf("%d of %d connections beyond the bound are refused", refused, beyond)
	}
	for _, c := range clients[1:] {
		c.SetLinger(0)
		c.Close()
	}
	began := time.Now()
	for openFiles(t) > before+10 {
		if time.Since(began) > 5*time.Second {
			t.Fatalf("%d descriptors are open, where %d were before", openFiles(t), before)
		}
		<-time.After(10 * time.Millisecond) // nothing tells when a descriptor is closed
	}
	clients[0].SetReadDeadline(time.Now().Add(patience))
	if _, err := clients[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client that waits gets %v", err)
	}
	address(func(l netlink.Link, a *netlink.Addr) error {
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		return errors.Join(netlink.AddrAdd(l, a),
			netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: all, Gw: network.UserGateway.AsSlice()}))
	})
	open(t, at, ln)
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	networktest.Check(t, err)
	return len(list)
}

// TestAForwardEndsWithItsClient lets a client half-close its connection and then go, while the
// guest neither says nor ends anything.
func TestAForwardEndsWithItsClient(t *testing.T) {
	user := newGuest(t, "deny")
	inside := user.listen(t, "0.0.0.0:0")
	_, userAt := user.publish(t, "tcp", portOf(inside), nil)
	host, err := net.Listen("tcp4", "127.0.0.1:0")
	networktest.Check(t, err)
	defer host.Close()
	gate := network.NewDirectGate(netip.MustParseAddr("127.0.0.1"), slog.New(slog.DiscardHandler))
	defer gate.Close()
	f := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: uint16(portOf(host))}
	file, err := network.Listen(f)
	networktest.Check(t, err)
	bridgeAt, err := network.Bound(file)
	networktest.Check(t, err)
	networktest.Check(t, gate.Publish(f, file, nil, nil))
	for _, c := range []struct {
		name, at string
		ln       net.Listener
	}{{"user network", userAt, inside}, {"bridge", bridgeAt.String(), host}} {
		t.Run(c.name, func(t *testing.T) {
			near, far := open(t, c.at, c.ln)
			near.CloseWrite()
			if _, err := far.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("the guest reads %v", err)
			}
			far.SetDeadline(time.Time{})
			gone, stop := network.WithPeer(t.Context(), far)
			defer stop()
			near.SetLinger(0)
			near.Close()
			select {
			case <-gone.Done():
			case <-time.After(10 * time.Second):
				t.Error("the guest's end stays open")
			}
		})
	}
}

// TestDescriptorsAreKeptForControl lets connections take descriptors until none is to spare.
func TestDescriptorsAreKeptForControl(t *testing.T) {
	g := newGuest(t, "deny")
	ln := g.listen(t, "0.0.0.0:0")
	_, at := g.publish(t, "tcp", portOf(ln), nil)
	var have syscall.Rlimit
	networktest.Check(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have))
	limit := uint64(openFiles(t) + 100)
	networktest.Check(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: have.Max}))
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &have)
	for range 100 {
		conn, err := net.Dial("tcp4", at)
		if errors.Is(err, syscall.EMFILE) {
			t.Fatal("no descriptor is left for control calls")
		}
		if errors.Is(err, syscall.ECONNRESET) {
			return
		}
		networktest.Check(t, err)
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(patience))
		ln.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second))
		far, err := ln.Accept()
		if err == nil {
			defer far.Close()
			continue
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection that cannot be afforded ends with %v", err)
		}
		return
	}
	t.Error("all connections are taken")
}
