package netstack_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"banger/internal/testing/networktest"

	"banger"
)

// TestAChangedPolicyCutsWhatIsBeingOpened begins flows of UDP while the policy changes. Whatever
// happens first, none of them carries anything after the change.
func TestAChangedPolicyCutsWhatIsBeingOpened(t *testing.T) {
	i := networktest.NewInternet(t)
	g := newGuest(t, "allow")
	var pc net.PacketConn
	i.In(t, func() (err error) {
		pc, err = net.ListenPacket("udp4", "0.0.0.0:81")
		return err
	})
	t.Cleanup(func() { pc.Close() })
	const rounds, atOnce = 150, 8
	for range rounds {
		g.stack.SetPolicy(banger.Policy{Default: banger.Allow})
		var conns []net.Conn
		for range atOnce {
			conn, err := g.dial("udp", "8.8.8.8:81")
			networktest.Check(t, err)
			conns = append(conns, conn)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for _, conn := range conns {
				conn.Write([]byte("early"))
			}
		})
		_, err := readText(pc) // the first of them is there, the others are on their way
		networktest.Check(t, err)
		g.stack.SetPolicy(banger.Policy{Default: banger.Deny})
		wg.Wait()
		g.lookup(t, "fence.example") // the stack has seen all that came before
		for _, conn := range conns {
			conn.Write([]byte("late")) // one that was refused says so
			conn.Write([]byte("late"))
		}
		g.lookup(t, "fence.example")
		g.stack.SetPolicy(banger.Policy{Default: banger.Allow})
		end, err := g.dial("udp", "8.8.8.8:81")
		networktest.Check(t, err)
		_, err = end.Write([]byte("end"))
		networktest.Check(t, err)
		late := 0
		for text := ""; text != "end"; {
			text, err = readText(pc)
			networktest.Check(t, err)
			if text == "late" {
				late++
			}
		}
		for _, conn := range append(conns, end) {
			conn.Close()
		}
		if late > 0 {
			t.Fatalf("%d datagrams came after the policy forbade them", late)
		}
	}
}

func readText(pc net.PacketConn) (string, error) {
	buf := make([]byte, 100)
	pc.SetReadDeadline(time.Now().Add(patience))
	n, _, err := pc.ReadFrom(buf)
	return string(buf[:n]), err
}
