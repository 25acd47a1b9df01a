package wake

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/network"
)

// patience bounds every wait. Only a failing wait takes nearly as long.
const patience = 30 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listen opens a free port of the loopback.
func listen(t *testing.T, protocol string) (banger.Forward, *os.File) {
	t.Helper()
	f := banger.Forward{Protocol: protocol, HostIP: "127.0.0.1", GuestPort: 80}
	file, err := network.Listen(f)
	check(t, err)
	t.Cleanup(func() { file.Close() })
	at, err := network.Bound(file)
	check(t, err)
	f.HostPort = at.Port()
	return f, file
}

// open returns a door with a port of each protocol, and calls wake as Run does until the test ends.
func open(t *testing.T, admit network.Admit, wake func(context.Context) error) (d *Door, tcp, udp banger.Forward) {
	t.Helper()
	d = NewDoor(slog.New(slog.DiscardHandler))
	tcp, tcpFile := listen(t, "tcp")
	udp, udpFile := listen(t, "udp")
	check(t, d.Add(tcp, tcpFile, admit))
	check(t, d.Add(udp, udpFile, admit))
	tcpFile.Close()
	udpFile.Close()
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		d.Run(ctx, wake)
		close(over)
	}()
	t.Cleanup(func() {
		d.Close()
		stop()
		<-over
	})
	return d, tcp, udp
}

func dial(t *testing.T, f banger.Forward) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout(f.Protocol, f.Host().String(), patience)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// wantReset connects and checks that the connection is reset, which may show at once.
func wantReset(t *testing.T, f banger.Forward) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", f.Host().String(), patience)
	if err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ends with %v", err)
	}
}

// woken returns a wake that reports each call, and returns the errors in turn.
func woken(errs ...error) (calls chan struct{}, wake func(context.Context) error) {
	calls = make(chan struct{}, 1000)
	return calls, func(context.Context) error {
		calls <- struct{}{}
		if len(errs) == 0 {
			return nil
		}
		err := errs[0]
		errs = errs[1:]
		return err
	}
}

func await(t *testing.T, calls <-chan struct{}) {
	t.Helper()
	select {
	case <-calls:
	case <-time.After(patience):
		t.Fatal("it was not woken")
	}
}

// TestConnectionsAreHeld checks that many connections wake once while the wake takes its time, that a bounded number of
// them is accepted, and that all can be served by who takes the sockets and connections.
func TestConnectionsAreHeld(t *testing.T) {
	begun, goOn := make(chan struct{}, 1000), make(chan struct{})
	d, tcp, _ := open(t, nil, func(context.Context) error {
		begun <- struct{}{}
		<-goOn
		return nil
	})
	const callers = maxHeld + 36
	var conns []net.Conn
	for range callers {
		conns = append(conns, dial(t, tcp))
	}
	await(t, begun)
	for deadline := time.Now().Add(patience); len(d.places) < maxHeld && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // there is no event for an accepted connection
	}
	d.Hold()
	files, err := d.Sockets()
	check(t, err)
	held := d.take()
	if len(held) != maxHeld {
		t.Errorf("%d connections are held, not %d", len(held), maxHeld)
	}
	for _, w := range held {
		if w.at != tcp {
			t.Errorf("one came to %s", w.at)
		}
		_, err := w.conn.WriteString("x")
		check(t, err)
		w.conn.Close()
	}
	ln, err := net.FileListener(files[tcp])
	check(t, err)
	defer ln.Close()
	for _, f := range files {
		f.Close()
	}
	for range callers - maxHeld {
		conn, err := ln.Accept()
		check(t, err)
		io.WriteString(conn, "x")
		conn.Close()
	}
	for _, c := range conns {
		if text, err := io.ReadAll(c); string(text) != "x" {
			t.Errorf("a caller gets %q, %v", text, err)
		}
	}
	d.Close()
	close(goOn)
	if len(begun) != 0 {
		t.Errorf("it was woken %d times more", len(begun))
	}
}

// TestADatagramStaysInTheSocket checks that it wakes, and that who takes the socket gets it.
func TestADatagramStaysInTheSocket(t *testing.T) {
	calls, wake := woken()
	d, _, udp := open(t, nil, wake)
	_, err := io.WriteString(dial(t, udp), "first")
	check(t, err)
	await(t, calls)
	d.Hold()
	files, err := d.Sockets()
	check(t, err)
	conn, err := net.FilePacketConn(files[udp])
	check(t, err)
	defer conn.Close()
	for _, f := range files {
		f.Close()
	}
	conn.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 16)
	if n, _, err := conn.ReadFrom(buf); string(buf[:n]) != "first" {
		t.Errorf("it is %q, %v", buf[:n], err)
	}
}

// TestStrangersWakeNothing checks connections and datagrams that are not admitted.
func TestStrangersWakeNothing(t *testing.T) {
	asked := make(chan struct{}, 10)
	calls, wake := woken()
	_, tcp, udp := open(t, func(from, to netip.AddrPort) bool {
		asked <- struct{}{}
		return false
	}, wake)
	wantReset(t, tcp)
	await(t, asked)
	_, err := io.WriteString(dial(t, udp), "x")
	check(t, err)
	await(t, asked)
	if len(calls) != 0 {
		t.Error("a stranger has woken the VM")
	}
}

// TestAnotherUserIsAStranger connects as this user and, if this is root, as another one.
func TestAnotherUserIsAStranger(t *testing.T) {
	calls, wake := woken()
	_, tcp, _ := open(t, network.OwnedBy("tcp", uint32(os.Geteuid())), wake)
	if os.Geteuid() == 0 {
		cmd := exec.Command("/bin/bash", "-c", `! { exec 3<>/dev/tcp/127.0.0.1/"$0" && read -r -t 30 <&3; }`, port16(tcp))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("as another user: %v\n%s", err, out)
		}
		if len(calls) != 0 {
			t.Error("another user has woken the VM")
		}
	}
	dial(t, tcp)
	await(t, calls)
}

func port16(f banger.Forward) string {
	_, port, _ := net.SplitHostPort(f.Host().String())
	return port
}

// TestAWakeThatFails refuses those who wait, and wakes again for the next.
func TestAWakeThatFails(t *testing.T) {
	calls, wake := woken(errors.New("a fault of the test"), errors.New("a second one"))
	_, tcp, udp := open(t, nil, wake)
	_, err := io.WriteString(dial(t, udp), "x")
	check(t, err)
	await(t, calls)
	wantReset(t, tcp)
	await(t, calls)
	dial(t, tcp)
	await(t, calls)
}

// TestADoorThatIsClosed refuses those who wait, and who comes.
func TestADoorThatIsClosed(t *testing.T) {
	calls, wake := woken()
	d, tcp, _ := open(t, nil, wake)
	conn := dial(t, tcp)
	await(t, calls)
	d.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ends with %v", err)
	}
	if _, err := net.Dial("tcp", tcp.Host().String()); err == nil {
		t.Error("the port is open")
	}
	other, file := listen(t, "tcp")
	if d.Add(other, file, nil) == nil {
		t.Error("a closed door takes a port")
	}
	d.GoOn()
	d.Hold()
}

// TestPortsComeAndGo adds and removes a port, also while the door is on hold.
func TestPortsComeAndGo(t *testing.T) {
	calls, wake := woken()
	d, tcp, _ := open(t, nil, wake)
	other, file := listen(t, "tcp")
	if err := d.Add(tcp, file, nil); err == nil {
		t.Error("another socket is taken for a port")
	}
	d.Hold()
	check(t, d.Add(other, file, nil))
	file.Close()
	d.Remove(tcp)
	d.Remove(tcp)
	d.GoOn()
	dial(t, other)
	await(t, calls)
	d.Remove(other)
	if _, err := net.Dial("tcp", other.Host().String()); err == nil {
		t.Error("the port is open")
	}
}

// TestSocketsAreChecked gives a door what does not listen where it should.
func TestSocketsAreChecked(t *testing.T) {
	d := NewDoor(slog.New(slog.DiscardHandler))
	defer d.Close()
	tcp, tcpFile := listen(t, "tcp")
	udp, udpFile := listen(t, "udp")
	null, err := os.Open(os.DevNull)
	check(t, err)
	defer null.Close()
	near, err := dial(t, tcp).(*net.TCPConn).File()
	check(t, err)
	defer near.Close()
	otherPort, otherAddress := udp, udp
	otherPort.HostPort, otherAddress.HostIP = 1, "127.0.0.2"
	for name, c := range map[string]struct {
		at   banger.Forward
		file *os.File
	}{
		"a file":             {tcp, null},
		"another protocol":   {tcp, udpFile},
		"another port":       {otherPort, udpFile},
		"another address":    {otherAddress, udpFile},
		"a connection":       {tcp, near},
		"a listening socket": {udp, tcpFile},
	} {
		if d.Add(c.at, c.file, nil) == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
