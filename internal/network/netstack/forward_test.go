package netstack_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger/internal/testing/networktest"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/network"
	"banger/internal/notation"
)

// publish opens a forward of a free port of the host and returns where it listens.
func (g *guest) publish(t *testing.T, proto string, port int, admit network.Admit) (banger.Forward, string) {
	t.Helper()
	f := banger.Forward{Protocol: proto, HostIP: "127.0.0.1", GuestPort: uint16(port)}
	file, err := network.Listen(f)
	networktest.Check(t, err)
	at, err := network.Bound(file)
	networktest.Check(t, err)
	f.HostPort = at.Port()
	networktest.Check(t, g.stack.Publish(f, file, nil, admit))
	return f, at.String()
}

// TestAForwardOfIPv6 leads from the host's address of IPv6 to the guest, which has none.
func TestAForwardOfIPv6(t *testing.T) {
	g := newGuest(t, "deny")
	for _, proto := range []string{"tcp", "udp"} {
		f, err := notation.ParseForward("[::1]:80/" + proto)
		networktest.Check(t, err)
		file, err := network.Listen(f)
		networktest.Check(t, err)
		at, err := network.Bound(file)
		networktest.Check(t, err)
		if proto == "tcp" {
			ln := g.listen(t, "0.0.0.0:80")
			networktest.Check(t, g.stack.Publish(f, file, nil, nil))
			conn, err := net.Dial("tcp", at.String())
			networktest.Check(t, err)
			defer conn.Close()
			far, err := ln.Accept()
			networktest.Check(t, err)
			defer far.Close()
			fmt.Fprintln(conn, "question")
			conn.(*net.TCPConn).CloseWrite()
			far.SetDeadline(time.Now().Add(patience))
			if text, err := io.ReadAll(far); string(text) != "question\n" || err != nil {
				t.Errorf("the guest reads %q, %v", text, err)
			}
			continue
		}
		var pc net.PacketConn
		g.In(t, func() error {
			pc, err = net.ListenPacket("udp4", "0.0.0.0:80")
			return err
		})
		defer pc.Close()
		networktest.Check(t, g.stack.Publish(f, file, nil, nil))
		conn, err := net.Dial("udp", at.String())
		networktest.Check(t, err)
		defer conn.Close()
		fmt.Fprint(conn, "question")
		buf := make([]byte, 100)
		pc.SetDeadline(time.Now().Add(patience))
		n, from, err := pc.ReadFrom(buf)
		networktest.Check(t, err)
		pc.WriteTo(buf[:n], from)
		conn.SetDeadline(time.Now().Add(patience))
		if n, err = conn.Read(buf); string(buf[:n]) != "question" || err != nil {
			t.Errorf("the answer is %q, %v", buf[:n], err)
		}
	}
}

func portOf(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }

// open connects through a forward and returns both ends.
func open(t *testing.T, at string, ln net.Listener) (near, far *net.TCPConn) {
	t.Helper()
	conn, err := net.Dial("tcp4", at)
	networktest.Check(t, err)
	other, err := ln.Accept()
	networktest.Check(t, err)
	near, far = conn.(*net.TCPConn), other.(*net.TCPConn)
	t.Cleanup(func() { near.Close(); far.Close() })
	near.SetDeadline(time.Now().Add(patience))
	far.SetDeadline(time.Now().Add(patience))
	return near, far
}

func TestAForwardHalfCloses(t *testing.T) {
	g := newGuest(t, "deny") // a policy is about what the guest begins
	ln := g.listen(t, "0.0.0.0:0")
	_, at := g.publish(t, "tcp", portOf(ln), nil)
	near, far := open(t, at, ln)
	if from := far.RemoteAddr().(*net.TCPAddr).IP.String(); from != network.UserGateway.String() {
		t.Errorf("the guest sees %s", from)
	}
	fmt.Fprint(near, "question")
	near.CloseWrite()
	if text, err := io.ReadAll(far); string(text) != "question" || err != nil {
		t.Fatalf("the guest reads %q, %v", text, err)
	}
	fmt.Fprint(far, "answer")
	far.CloseWrite()
	if text, err := io.ReadAll(near); string(text) != "answer" || err != nil {
		t.Errorf("the host reads %q, %v", text, err)
	}
}

// TestBytesArriveAsTheyWere sends much through connections that either side began,
// both ways at once.
func TestBytesArriveAsTheyWere(t *testing.T) {
	i := networktest.NewInternet(t)
	g := newGuest(t, "allow")
	inside := g.listen(t, "0.0.0.0:0")
	_, at := g.publish(t, "tcp", portOf(inside), nil)
	near, far := open(t, at, inside)
	exchange(t, near, far)

	var outside net.Listener
	i.In(t, func() (err error) {
		outside, err = net.Listen("tcp4", "0.0.0.0:81")
		return err
	})
	defer outside.Close()
	conn, err := g.dial("tcp", "8.8.8.8:81")
	networktest.Check(t, err)
	other, err := outside.Accept()
	networktest.Check(t, err)
	defer conn.Close()
	defer other.Close()
	exchange(t, conn.(*net.TCPConn), other.(*net.TCPConn))
}

func exchange(t *testing.T, a, b *net.TCPConn) {
	t.Helper()
	const size = 32 << 20
	type result struct {
		sum [32]byte
		err error
	}
	results := map[string]chan result{}
	want := map[string][32]byte{}
	for name, ends := range map[string][2]*net.TCPConn{"forth": {a, b}, "back": {b, a}} {
		data := make([]byte, size)
		rand.Read(data)
		want[name] = sha256.Sum256(data)
		got := make(chan result, 1)
		results[name] = got
		go func() {
			io.Copy(ends[0], bytes.NewReader(data))
			ends[0].CloseWrite()
		}()
		go func() {
			h := sha256.New()
			_, err := io.Copy(h, ends[1])
			got <- result{[32]byte(h.Sum(nil)), err}
		}()
	}
	for name, got := range results {
		if r := <-got; r.err != nil || r.sum != want[name] {
			t.Errorf("%s: %v, the same bytes: %v", name, r.err, r.sum == want[name])
		}
	}
}

func TestAForwardOfDatagrams(t *testing.T) {
	g := newGuest(t, "deny")
	var pc net.PacketConn
	g.In(t, func() (err error) {
		pc, err = net.ListenPacket("udp4", "0.0.0.0:0")
		return err
	})
	defer pc.Close()
	f, at := g.publish(t, "udp", pc.LocalAddr().(*net.UDPAddr).Port, nil)
	buf := make([]byte, 65536)
	for _, who := range []string{"one", "two"} {
		conn, err := net.Dial("udp4", at)
		networktest.Check(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		pc.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(conn, who)
		n, from, err := pc.ReadFrom(buf)
		networktest.Check(t, err)
		pc.WriteTo([]byte("hello "+string(buf[:n])), from)
		if n, err = conn.Read(buf); err != nil || string(buf[:n]) != "hello "+who {
			t.Errorf("%s gets %q, %v", who, buf[:n], err)
		}
	}
	if !g.stack.Unpublish(f) || g.stack.Unpublish(f) {
		t.Error("it cannot be ended exactly once")
	}
}

func TestEndingAForwardCutsItsConnections(t *testing.T) {
	g := newGuest(t, "deny")
	ln := g.listen(t, "0.0.0.0:0")
	f, at := g.publish(t, "tcp", portOf(ln), nil)
	near, far := open(t, at, ln)
	g.stack.Unpublish(f)
	for _, conn := range []net.Conn{near, far} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a connection ends with %v", err)
		}
	}
	if _, err := net.Dial("tcp4", at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new one ends with %v", err)
	}
}

func TestAPortOnWhichNobodyListensRefuses(t *testing.T) {
	g := newGuest(t, "deny")
	_, at := g.publish(t, "tcp", 9, nil)
	conn, err := net.Dial("tcp4", at)
	if errors.Is(err, syscall.ECONNRESET) {
		return // so soon that it was never made
	}
	networktest.Check(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it reads %d bytes, %v", n, err)
	}
}

// TestOnlyTheOwnerIsLetIn: the kernel tells who made a connection. A socket is its
// maker's, by his user id for files, which a thread may change alone.
func TestOnlyTheOwnerIsLetIn(t *testing.T) {
	const owner, stranger = 12345, 54321
	g := newGuest(t, "deny")
	ln := g.listen(t, "0.0.0.0:0")
	_, at := g.publish(t, "tcp", portOf(ln), network.OwnedBy("tcp", owner))
	for _, tt := range []struct {
		uid int
		in  bool
	}{{owner, true}, {0, true}, {stranger, false}} {
		t.Run(fmt.Sprint(tt.uid), func(t *testing.T) {
			conn, err := dialAs(t, tt.uid, "tcp4", at)
			if !tt.in && errors.Is(err, syscall.ECONNRESET) {
				return // so soon that it was never made
			}
			networktest.Check(t, err)
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			if tt.in {
				far, err := ln.Accept()
				networktest.Check(t, err)
				fmt.Fprint(far, "x")
				far.Close()
			}
			if n, err := conn.Read(make([]byte, 1)); tt.in != (n == 1) {
				t.Errorf("let in: %v (%v)", n == 1, err)
			}
		})
	}
}

// TestAStrangerWhoIsGoneIsNotHeard: he sends and closes at once, after which the kernel does not tell any more whose
// the connection was.
func TestAStrangerWhoIsGoneIsNotHeard(t *testing.T) {
	const owner, stranger = 12345, 54321
	g := newGuest(t, "deny")
	ln := g.listen(t, "0.0.0.0:0")
	f := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", GuestPort: uint16(portOf(ln))}
	file, err := network.Listen(f)
	networktest.Check(t, err)
	bound, err := network.Bound(file)
	networktest.Check(t, err)
	at := bound.String()
	for range 10 { // the kernel completes these connections, and the gate accepts them when the strangers have gone
		conn, err := dialAs(t, stranger, "tcp4", at)
		networktest.Check(t, err)
		io.WriteString(conn, "from a stranger")
		conn.Close()
	}
	awaitForgotten(t, bound)
	networktest.Check(t, g.stack.Publish(f, file, nil, network.OwnedBy("tcp", owner)))
	conn, err := dialAs(t, owner, "tcp4", at)
	networktest.Check(t, err)
	defer conn.Close()
	io.WriteString(conn, "from the owner")
	conn.(*net.TCPConn).CloseWrite()
	far, err := ln.Accept() // of the first that was let in
	networktest.Check(t, err)
	defer far.Close()
	if heard, err := io.ReadAll(far); string(heard) != "from the owner" || err != nil {
		t.Errorf("the guest hears %q, %v", heard, err)
	}
}

// awaitForgotten returns when the kernel has forgotten the owners of the closed connections to at.
// After it has acknowledged their ends, of which it informs no program, it lists them as
// connections of root in state 06, TIME_WAIT (proc_net(5)).
func awaitForgotten(t *testing.T, at netip.AddrPort) {
	t.Helper()
	to := fmt.Sprintf("0100007F:%04X", at.Port())
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		data, err := os.ReadFile("/proc/thread-self/net/tcp")
		networktest.Check(t, err)
		known, gone := 0, 0
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 3 && f[2] == to && f[3] == "05" {
				gone++
			} else if len(f) > 3 && f[2] == to {
				known++
			}
		}
		switch {
		case known == 0 && gone > 0:
			return
		case time.Now().After(end):
			t.Fatalf("of %d connections the kernel still knows whose they were", known)
		}
	}
}

// TestOnlyTheOwnersDatagramsPass checks that a stranger's datagram is not heard, and that the stranger
// hears no answer when he has got the port that was the owner's.
func TestOnlyTheOwnersDatagramsPass(t *testing.T) {
	const owner, stranger = 12345, 54321
	g := newGuest(t, "deny")
	var pc net.PacketConn
	g.In(t, func() (err error) {
		pc, err = net.ListenPacket("udp4", "0.0.0.0:0")
		return err
	})
	defer pc.Close()
	_, at := g.publish(t, "udp", pc.LocalAddr().(*net.UDPAddr).Port, network.OwnedBy("udp", owner))
	for range 20 {
		conn, err := dialAs(t, stranger, "udp4", at)
		networktest.Check(t, err)
		io.WriteString(conn, "from a stranger")
		defer conn.Close()
		gone, err := dialAs(t, stranger, "udp4", at)
		networktest.Check(t, err)
		io.WriteString(gone, "from one who has gone")
		gone.Close()
	}
	conn, err := dialAs(t, owner, "udp4", at)
	networktest.Check(t, err)
	io.WriteString(conn, "from the owner")
	buf := make([]byte, 100)
	n, from, err := pc.ReadFrom(buf)
	if string(buf[:n]) != "from the owner" || err != nil {
		t.Fatalf("the guest hears %q, %v", buf[:n], err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	pc.WriteTo([]byte("answer"), from)
	if n, err = conn.Read(buf); string(buf[:n]) != "answer" || err != nil {
		t.Fatalf("the owner hears %q, %v", buf[:n], err)
	}
	port := conn.LocalAddr().(*net.UDPAddr)
	conn.Close()
	heir, err := listenAs(t, stranger, port)
	networktest.Check(t, err)
	defer heir.Close()
	pc.WriteTo([]byte("secret"), from)
	// When the owner hears a later answer, the earlier one has most likely been dealt with.
	next, err := dialAs(t, owner, "udp4", at)
	networktest.Check(t, err)
	defer next.Close()
	next.SetDeadline(time.Now().Add(patience))
	io.WriteString(next, "again")
	_, from, err = pc.ReadFrom(buf)
	networktest.Check(t, err)
	pc.WriteTo([]byte("answer"), from)
	if n, err = next.Read(buf); string(buf[:n]) != "answer" || err != nil {
		t.Fatalf("the owner hears %q, %v", buf[:n], err)
	}
	heir.SetReadDeadline(time.Now().Add(time.Second))
	if n, _, err = heir.ReadFrom(buf); err == nil {
		t.Errorf("the stranger hears %q", buf[:n])
	}
}

func listenAs(t *testing.T, uid int, at *net.UDPAddr) (conn *net.UDPConn, err error) {
	t.Helper()
	as(t, uid, func() { conn, err = net.ListenUDP("udp4", at) })
	return conn, err
}

func dialAs(t *testing.T, uid int, network, at string) (conn net.Conn, err error) {
	t.Helper()
	as(t, uid, func() { conn, err = net.Dial(network, at) })
	return conn, err
}

// as runs f in a thread whose sockets belong to uid. In a user namespace that does not have the
// user there is no such thread.
func as(t *testing.T, uid int, f func()) {
	t.Helper()
	can := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		unix.SetfsuidRetUid(uid)
		if now, _ := unix.SetfsuidRetUid(-1); now == uid { // -1 is no user, and the call tells who it was
			can = true
			f()
		}
	}()
	<-done
	if !can {
		t.Skipf("this user cannot be user %d; root can", uid)
	}
}

func TestATakenPortSaysWhoHasIt(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	networktest.Check(t, err)
	defer ln.Close()
	f := banger.Forward{Protocol: "tcp", HostIP: "127.0.0.1", HostPort: uint16(portOf(ln)), GuestPort: 80}
	_, err = network.Listen(f)
	if want := fmt.Sprintf("(pid %d)", os.Getpid()); banger.CodeOf(err) != banger.CodeConflict ||
		!strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("it is %v, which does not name %s", err, want)
	}
	f.HostIP, f.HostPort = "203.0.113.7", 0
	if _, err := network.Listen(f); banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("an address of somebody else gives %v", err)
	}
}

// TestManyForwardsAreOpenAtOnce is the bound of one VM.
func TestManyForwardsAreOpenAtOnce(t *testing.T) {
	g := newGuest(t, "deny")
	ln := g.listen(t, "0.0.0.0:0")
	for range banger.MaxForwards {
		_, at := g.publish(t, "tcp", portOf(ln), nil)
		near, far := open(t, at, ln)
		near.Close()
		far.Close()
	}
}
