package netstack_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/internal/network/netstack"
	"banger/internal/testing/networktest"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/network"
	"banger/internal/testing/processtest"
)

// TestFramesThatAreNotTheGuestsAreDropped sends questions for the resolver from the
// guest's NIC as somebody else, between two of its own.
func TestFramesThatAreNotTheGuestsAreDropped(t *testing.T) {
	g := newGuest(t, "allow")
	own, _ := net.ParseMAC(network.MAC(guestID))
	gateway := net.HardwareAddr{0x52, 0x55, 0x0a, 0, 2, 2}
	other := net.HardwareAddr{0x52, 0x54, 1, 2, 3, 4}
	guestIP, otherIP := net.IP{10, 0, 2, 15}, net.IP{10, 0, 2, 16}
	for _, c := range []struct {
		name   string
		frame  []byte
		answer bool
	}{
		{"its own echo request", frame(gateway, own, 0x0800, echoRequest(guestIP)), true},
		{"another hardware address", frame(gateway, other, 0x0800, echoRequest(guestIP)), false},
		{"another network address", frame(gateway, own, 0x0800, echoRequest(otherIP)), false},
		{"its own question who has the gateway", frame(gateway, own, 0x0806, arpRequest(own, guestIP)), true},
		{"a claim to another network address", frame(gateway, own, 0x0806, arpRequest(own, otherIP)), false},
		{"a claim of another hardware address", frame(gateway, own, 0x0806, arpRequest(other, guestIP)), false},
		{"IPv6", frame(gateway, own, 0x86dd, make([]byte, 40)), false},
		{"a VLAN tag", frame(gateway, own, 0x8100, append([]byte{0, 1, 8, 0}, echoRequest(guestIP)...)), false},
		{"a packet without its header", frame(gateway, own, 0x0800, echoRequest(guestIP)[:19]), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := packetSocket(t, g)
			defer unix.Close(raw)
			fence := frame(gateway, own, 0x0800, echoRequest(guestIP))
			fence[len(fence)-1] ^= 0xff // of the identifier's payload: told apart from c.frame
			fix(fence)
			networktest.Check(t, unixSend(raw, c.frame))
			networktest.Check(t, unixSend(raw, fence))
			got := false
			buf := make([]byte, 70000)
			for {
				n, err := unix.Read(raw, buf)
				networktest.Check(t, err)
				answer := buf[:n]
				if n < 14 || !bytes.Equal(answer[6:12], gateway) {
					continue // the guest's own kernel
				}
				if bytes.HasSuffix(answer, fence[len(fence)-8:]) {
					break
				}
				got = true
			}
			if got != c.answer {
				t.Errorf("it is answered: %v", got)
			}
		})
	}
}

func unixSend(fd int, b []byte) error {
	_, err := unix.Write(fd, b)
	return err
}

// packetSocket reads and writes raw frames of the guest's NIC (packet(7)).
func packetSocket(t *testing.T, g *guest) (fd int) {
	t.Helper()
	g.In(t, func() (err error) {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval(int64(patience))
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index})
	})
	return fd
}

func frame(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	b := append(append([]byte(nil), to...), from...)
	return append(binary.BigEndian.AppendUint16(b, kind), payload...)
}

// echoRequest returns a ping of the gateway.
func echoRequest(from net.IP) []byte {
	p := make([]byte, 36)
	p[0], p[8], p[9] = 0x45, 64, 1
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.To4())
	copy(p[16:], []byte{10, 0, 2, 2})
	binary.BigEndian.PutUint16(p[10:], sum(p[:20]))
	p[20] = 8
	copy(p[28:], "question")
	binary.BigEndian.PutUint16(p[22:], sum(p[20:]))
	return p
}

// fix corrects the checksum of an echo request's frame.
func fix(f []byte) {
	f[14+22], f[14+23] = 0, 0
	binary.BigEndian.PutUint16(f[14+22:], sum(f[14+20:]))
}

func sum(b []byte) uint16 { // RFC 1071
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

func arpRequest(mac net.HardwareAddr, ip net.IP) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(append(b, mac...), ip.To4()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), 10, 0, 2, 2)
}

// TestFlowsAreBounded opens more than a guest may have: the new one is refused, the
// old ones go on.
func TestFlowsAreBounded(t *testing.T) {
	const bound = 2048
	needFiles(t, 3*bound+500) // both ends of each flow, and the flow's own socket
	i := networktest.NewInternet(t)
	g := newGuest(t, "allow")
	var ln net.Listener
	i.In(t, func() (err error) {
		ln, err = net.Listen("tcp4", "0.0.0.0:81")
		return err
	})
	var far []net.Conn
	var mu sync.Mutex
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			far = append(far, conn)
			mu.Unlock()
		}
	}()
	defer func() {
		ln.Close()
		<-accepted
		for _, c := range far {
			c.Close()
		}
	}()
	var near []net.Conn
	for n := range bound + 1 {
		conn, err := g.dial("tcp", "8.8.8.8:81")
		if (err == nil) != (n < bound) {
			t.Fatalf("connection %d: %v", n, err)
		}
		if err == nil {
			near = append(near, conn)
			defer conn.Close()
		}
	}
	near[0].Close()
	near[0].SetDeadline(time.Now().Add(patience))
	fmt.Fprint(near[1], "x")
	mu.Lock()
	second := far[1]
	mu.Unlock()
	second.SetDeadline(time.Now().Add(patience))
	if _, err := second.Read(make([]byte, 1)); err != nil {
		t.Errorf("an old connection ends with %v", err)
	}
}

// needFiles lets the test's process open n files.
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	var have unix.Rlimit
	networktest.Check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &have))
	if have.Cur >= n {
		return
	}
	want := unix.Rlimit{Cur: n, Max: max(n, have.Max)}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		t.Fatalf("the test needs %d open files and may have %d, raise the limit (ulimit -n): %v", n, have.Max, err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &have) })
}

// TestAFloodOfDatagramsEndsNothingElse sends to more places than there are flows.
func TestAFloodOfDatagramsEndsNothingElse(t *testing.T) {
	networktest.NewInternet(t)
	g := newGuest(t, "allow")
	conn, err := g.dial("tcp", "8.8.8.8:80")
	networktest.Check(t, err)
	defer conn.Close()
	var pc net.PacketConn
	g.In(t, func() (err error) {
		pc, err = net.ListenPacket("udp4", "0.0.0.0:0")
		return err
	})
	defer pc.Close()
	for n := range 5000 {
		pc.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IP{9, 9, byte(n >> 8), byte(n)}, Port: 81})
	}
	conn.SetDeadline(time.Now().Add(patience))
	if text, err := io.ReadAll(conn); strings.TrimSpace(string(text)) != networktest.World {
		t.Errorf("a connection of before gives %q, %v", text, err)
	}
	if again, err := g.dial("tcp", "8.8.4.4:80"); err == nil { // behind what the guest has queued
		again.Close()
	}
	if got := tryUDP(t, g, "8.8.8.8", true); got == networktest.Nobody {
		t.Error("a datagram of after is lost")
	}
}

// FuzzFrames feeds bytes to the stack as frames of the guest: it must neither fail
// nor answer more than it was asked.
func FuzzFrames(f *testing.F) {
	own, _ := net.ParseMAC(network.MAC(guestID))
	gateway := net.HardwareAddr{0x52, 0x55, 0x0a, 0, 2, 2}
	f.Add(frame(gateway, own, 0x0800, echoRequest(net.IP{10, 0, 2, 15})))
	f.Add(frame(gateway, own, 0x0806, arpRequest(own, net.IP{10, 0, 2, 15})))
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := processtest.SocketPair(t)
		s, err := netstack.New(netstack.NewStream(far), netstack.Config{MAC: network.MAC(guestID), Lookup: (&zone{}).exchange,
			Policy: banger.Policy{Default: banger.Deny}, Log: slog.New(slog.DiscardHandler)})
		networktest.Check(t, err)
		near.SetDeadline(time.Now().Add(patience))
		if len(b) >= 12 {
			copy(b[6:12], own) // else nothing of it is looked at
		}
		near.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
		fence := frame(gateway, own, 0x0800, echoRequest(net.IP{10, 0, 2, 15}))
		near.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(fence))), fence...))
		for { // until the fence is answered
			var size [4]byte
			if _, err := io.ReadFull(near, size[:]); err != nil {
				if len(b) > 14+65535 { // no frame: the link is closed
					break
				}
				t.Fatalf("the stack answers no more: %v", err)
			}
			answer := make([]byte, binary.BigEndian.Uint32(size[:]))
			_, err := io.ReadFull(near, answer)
			networktest.Check(t, err)
			if bytes.HasSuffix(answer, []byte("question")) {
				break
			}
		}
		near.Close()
		networktest.Check(t, s.Close())
	})
}
