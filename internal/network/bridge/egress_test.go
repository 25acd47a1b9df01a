package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/network/bridge"
	"banger/internal/testing/networktest"
	"banger/internal/testing/processtest"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"banger/internal/network"
	"banger/internal/notation"
)

// TestEgressMatrixOfABridge is TestEgressMatrix for the bridge mode: the kernel's
// tables answer as the stack does, but that they drop what they refuse.
func TestEgressMatrixOfABridge(t *testing.T) {
	processtest.Long(t)
	for name, c := range networktest.EgressPolicies {
		t.Run(name, func(t *testing.T) {
			world := networktest.NewInternet(t)
			g := newBridgedGuest(t, c.Policy)
			g.In(t, func() error { return networktest.ServeOwn(t, networktest.GuestOwn) })
			var wg sync.WaitGroup
			for i, d := range networktest.Destinations {
				want := c.Want(i)
				for proto, try := range map[string]func(string, time.Duration) (string, error){"tcp": g.tryTCP, "udp": g.tryUDP,
					"icmp": g.tryPing} {
					wg.Go(func() { // at once: nothing is told of what is dropped
						wait := 2 * time.Second
						if want != networktest.Nobody {
							wait = processtest.Patience
						}
						got, err := try(d.Address, wait)
						if proto != "tcp" && got != networktest.Nobody { // which does not say who it is
							got = want
							if want == networktest.Nobody {
								got = "somebody"
							}
						}
						if got != want {
							t.Errorf("%s to %s is answered by %q, not %q (%v)", proto, d.Address, got, want, err)
						}
					})
				}
			}
			wg.Wait()
			for i, d := range networktest.Destinations {
				for _, proto := range []string{"tcp", "udp"} {
					want := c.Want(i)
					reached := want == networktest.World || want == networktest.TheHost
					if got := world.Was(proto + " " + d.Address); got != reached {
						t.Errorf("%s to %s arrived: %v", proto, d.Address, got)
					}
				}
			}
		})
	}
}

const guestID = "0123456789ab"

// bridgedGuest is a real kernel at a bridge of the test's own namespace.
type bridgedGuest struct{ *networktest.Namespace }

func newBridgedGuest(t *testing.T, policy string) *bridgedGuest {
	t.Helper()
	p, err := notation.ParsePolicy(policy)
	networktest.Check(t, err)
	b, err := bridge.Open(filepath.Join(t.TempDir(), "memory"))
	networktest.Check(t, err)
	t.Cleanup(b.Close)
	n := bridge.Network{Name: "lab", Subnet: netip.MustParsePrefix("172.30.1.0/24"), Isolated: true}
	port := bridge.Port{ID: guestID, Network: n.Name, Address: netip.MustParseAddr("172.30.1.2"),
		MAC: network.MAC(guestID), Policy: p}
	c := bridge.Config{Networks: []bridge.Network{n}, Ports: []bridge.Port{port}}
	networktest.Check(t, b.Apply(context.Background(), c))
	t.Cleanup(func() { networktest.Check(t, b.Remove(context.Background())) })
	g := &bridgedGuest{networktest.NewNamespace(t)}
	var inner *os.File
	g.In(t, func() (err error) {
		inner, err = networktest.OpenTap("eth0")
		return err
	})
	outer, err := networktest.OpenTap(port.Tap())
	networktest.Check(t, err)
	networktest.PumpFrames(t, inner, outer)
	g.In(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		mac, _ := net.ParseMAC(port.MAC)
		return errors.Join(netlink.LinkSetHardwareAddr(l, mac),
			os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0),
			networktest.SetUp("eth0", "172.30.1.2/24", n.Gateway().String()))
	})
	g.In(t, func() error { // until the gateway answers, be it that nobody listens
		conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(n.Gateway(), 53).String(), processtest.Patience)
		if err == nil {
			conn.Close()
		}
		if err != nil && !strings.Contains(err.Error(), "refused") {
			return err
		}
		return nil
	})
	return g
}

func (g *bridgedGuest) tryTCP(to string, wait time.Duration) (name string, err error) {
	err = g.Try(func() error {
		conn, err := net.DialTimeout("tcp4", to+":80", wait)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(processtest.Patience))
		text, err := io.ReadAll(conn)
		name = strings.TrimSpace(string(text))
		return err
	})
	return name, err
}

func (g *bridgedGuest) tryUDP(to string, wait time.Duration) (who string, err error) {
	err = g.Try(func() error {
		conn, err := net.Dial("udp4", to+":80")
		if err != nil {
			return err
		}
		defer conn.Close()
		who, err = echoed(conn, wait, "hello "+to, func(b []byte) string { return string(b) })
		return err
	})
	return who, err
}

func (g *bridgedGuest) tryPing(to string, wait time.Duration) (who string, err error) {
	err = g.Try(func() error {
		conn, err := icmp.ListenPacket("udp4", "0.0.0.0")
		if err != nil {
			return err
		}
		defer conn.Close()
		message, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 1, Seq: 7,
			Data: []byte("ping " + to)}}).Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(message, &net.UDPAddr{IP: net.ParseIP(to)}); err != nil {
			return err
		}
		who, err = echoed(networktest.Pinged{PacketConn: conn}, wait, "", func(b []byte) string {
			m, err := icmp.ParseMessage(1, b)
			if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
				return fmt.Sprint("no reply: ", err)
			}
			if e, ok := m.Body.(*icmp.Echo); !ok || e.Seq != 7 || string(e.Data) != "ping "+to {
				return "the reply to another"
			}
			return ""
		})
		return err
	})
	return who, err
}

// echoed sends text, unless it is "", and reports whether it comes back.
func echoed(conn net.Conn, wait time.Duration, text string, read func([]byte) string) (who string, err error) {
	if text != "" {
		if _, err := conn.Write([]byte(text)); err != nil {
			return networktest.Nobody, err
		}
	}
	conn.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 65536)
	n, err := conn.Read(buf)
	if err != nil {
		return networktest.Nobody, err
	}
	if got := read(buf[:n]); got != text {
		return networktest.Nobody, errors.New(got)
	}
	return "somebody", nil
}
