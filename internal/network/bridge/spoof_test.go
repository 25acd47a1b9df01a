package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestSpoofedFramesGoNowhere has a VM send frames that are not its own. The last
// one is, which shows that those before it have been looked at.
func TestSpoofedFramesGoNowhere(t *testing.T) {
	l := newLab(t, defaultNet())
	seen := l.host.serve(53)
	l.config.Ports = []Port{l.port(1, 0, "allow"), l.port(2, 0, "allow")}
	l.apply()
	me, other, gw := l.config.Ports[0], l.config.Ports[1], l.config.Networks[0]
	for name, frame := range map[string][]byte{
		"MAC":               udpFrame(gw.mac(), other.mac(), me.Address.AsSlice(), gw.Gateway().AsSlice()),
		"IP":                udpFrame(gw.mac(), me.mac(), other.Address.AsSlice(), gw.Gateway().AsSlice()),
		"IP of nobody":      udpFrame(gw.mac(), me.mac(), []byte{172, 30, 1, 77}, gw.Gateway().AsSlice()),
		"another VM's both": udpFrame(gw.mac(), other.mac(), other.Address.AsSlice(), gw.Gateway().AsSlice()),
		"DHCP": udpFrame(net.HardwareAddr{255, 255, 255, 255, 255, 255}, me.mac(), []byte{0, 0, 0, 0},
			[]byte{255, 255, 255, 255}),
		"past the bridge": udpFrame(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, me.mac(), me.Address.AsSlice(),
			gw.Gateway().AsSlice()),
		"past the bridge, as other": udpFrame(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, me.mac(), []byte{8, 8, 8, 8},
			gw.Gateway().AsSlice()),
		"VLAN": vlan(udpFrame(gw.mac(), me.mac(), me.Address.AsSlice(), gw.Gateway().AsSlice())),
	} {
		t.Run(name, func(t *testing.T) {
			tap := l.openPort(me, gw, seen)
			defer tap.Close()
			for _, f := range [][]byte{frame, udpFrame(gw.mac(), me.mac(), me.Address.AsSlice(), gw.Gateway().AsSlice())} {
				if _, err := tap.Write(f); err != nil {
					t.Fatal(err)
				}
			}
			if from := awaitDatagram(t, seen); from.Addr() != me.Address {
				t.Errorf("the host took a datagram of %s", from)
			}
			for len(seen) > 0 {
				if from := <-seen; from.Port() != hellos {
					t.Errorf("the host took two datagrams, one of %s", from)
				}
			}
		})
	}
	t.Run("ARP and router advertisements", func(t *testing.T) {
		mine, yours := l.openPort(me, gw, seen), l.openPort(other, gw, seen)
		for yours.SetReadDeadline(time.Now().Add(50*time.Millisecond)) == nil { // the host's answers to its hellos
			if _, err := yours.Read(make([]byte, 2048)); err != nil {
				break
			}
		}
		for _, f := range [][]byte{
			arpFrame(me.mac(), me.mac(), gw.Gateway().AsSlice(), other.Address.AsSlice()),
			arpFrame(me.mac(), other.mac(), me.Address.AsSlice(), gw.Gateway().AsSlice()),
			arpFrame(me.mac(), me.mac(), []byte{172, 30, 1, 77}, gw.Gateway().AsSlice()),
			append(append([]byte{0x33, 0x33, 0, 0, 0, 1}, me.mac()...), append([]byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58,
				255}, make([]byte, 48)...)...),
			arpFrame(me.mac(), me.mac(), me.Address.AsSlice(), gw.Gateway().AsSlice()),
		} {
			if _, err := mine.Write(f); err != nil {
				t.Fatal(err)
			}
		}
		if answer := next(t, mine); !bytes.Equal(answer[:6], me.mac()) || !bytes.Equal(answer[28:32],
			gw.Gateway().AsSlice()) {
			t.Errorf("the first answer is not the one to the last question: % x", answer)
		}
		_ = yours.SetReadDeadline(time.Now())
		if n, err := yours.Read(make([]byte, 2048)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("another VM got a frame of %d bytes", n)
		}
		neighbours, err := l.host.nl.NeighList(l.host.link(gw.Link()).Attrs().Index, unix.AF_INET)
		l.host.must(err)
		for _, n := range neighbours {
			if n.State != netlink.NUD_PERMANENT {
				t.Errorf("the host learned %s", n.String())
			}
		}
	})
}

// hellos is the source port of datagrams that only test whether a port is open.
const hellos = 1

// openPort opens a tap and returns when the bridge takes frames from it, which is some
// time after its link has come up.
func (l *lab) openPort(p Port, n Network, seen <-chan netip.AddrPort) *os.File {
	l.Helper()
	tap := l.host.openTap(p.Tap())
	hello := udpFrame(n.mac(), p.mac(), p.Address.AsSlice(), n.Gateway().AsSlice())
	binary.BigEndian.PutUint16(hello[34:], hellos)
	for limit := time.Now().Add(30 * time.Second); ; {
		if _, err := tap.Write(hello); err != nil && !errors.Is(err, unix.EIO) { // EIO: it is not up yet
			l.Fatal(err)
		}
		select {
		case <-seen:
			return tap
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(limit) {
			l.Fatalf("the bridge takes nothing from %s", p.Tap())
		}
	}
}

// awaitDatagram returns the sender of the next datagram, except hellos.
func awaitDatagram(t *testing.T, seen <-chan netip.AddrPort) netip.AddrPort {
	t.Helper()
	for timeout := time.After(30 * time.Second); ; {
		select {
		case from := <-seen:
			if from.Port() != hellos {
				return from
			}
		case <-timeout:
			t.Fatal("no datagram comes")
		}
	}
}

// next returns the next frame that is ARP.
func next(t *testing.T, tap *os.File) []byte {
	t.Helper()
	buf := make([]byte, 2048)
	_ = tap.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		n, err := tap.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n >= 42 && buf[12] == 8 && buf[13] == 6 {
			return buf[:n]
		}
	}
}

func udpFrame(to, from net.HardwareAddr, src, dst []byte) []byte {
	f := append(append(append([]byte{}, to...), from...), 8, 0)
	ip := append([]byte{0x45, 0, 0, 33, 0, 0, 0x40, 0, 64, 17, 0, 0}, append(append([]byte{}, src...), dst...)...)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	return append(append(f, ip...), 0x30, 0x39, 0, 53, 0, 13, 0, 0, 'h', 'e', 'l', 'l', 'o')
}

func vlan(f []byte) []byte {
	return append(append(append([]byte{}, f[:12]...), 0x81, 0, 0, 0), f[12:]...)
}

func arpFrame(from, sender net.HardwareAddr, src, target []byte) []byte {
	f := append([]byte{255, 255, 255, 255, 255, 255}, from...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	f = append(append(f, sender...), src...)
	return append(append(f, 0, 0, 0, 0, 0, 0), target...)
}
