package netstack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banger/internal/network/netstack"
	"banger/internal/testing/networktest"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/network"
	"banger/internal/notation"
)

// tapRole names the role of a process of TestATapInANamespaceIsServedByAnOrdinaryUser.
const tapRole = "BANGER_TEST_TAP"

// TestATapInANamespaceIsServedByAnOrdinaryUser is the network of a VMM that only speaks tap: the
// shim, an ordinary user without any right, starts the VMM in a user and a network
// namespace, which it stays outside of itself, and serves the tap there by the socket
// that it is handed. The guest is a real kernel.
func TestATapInANamespaceIsServedByAnOrdinaryUser(t *testing.T) {
	switch os.Getenv(tapRole) {
	case "shim":
		tapShim(t)
		return
	case "vmm":
		tapVMM(t)
		return
	}
	self, err := os.Open("/proc/self/exe")
	networktest.Check(t, err)
	defer self.Close()
	script := `exec /proc/self/fd/3 -test.run="$1" -test.timeout=60s`
	attr := &syscall.SysProcAttr{}
	switch {
	case !isHostsRoot(t): // root of a namespace only (TestMain): become an ordinary user of one below it
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}}
	default: // become nobody, on a host whose /dev/net/tun is as distributions have it
		attr.Unshareflags = syscall.CLONE_NEWNS
		script = `mknod tun c 10 200 && chmod 0666 tun && mount --bind tun /dev/net/tun && ` +
			`exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all ` +
			strings.TrimPrefix(script, "exec ")
	}
	cmd := exec.Command("/bin/sh", "-c", script, "sh", "^"+t.Name()+"$")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), tapRole+"=shim")
	cmd.ExtraFiles = []*os.File{self}
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// isHostsRoot reports whether the tests are root of the host, and not of a namespace that an
// ordinary user has made (user_namespaces(7): the first one maps all ids).
func isHostsRoot(t *testing.T) bool {
	t.Helper()
	ids, err := os.ReadFile("/proc/self/uid_map")
	networktest.Check(t, err)
	return slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"})
}

// tapShim is the process outside of the namespace.
func tapShim(t *testing.T) {
	status, err := os.ReadFile("/proc/self/status")
	networktest.Check(t, err)
	if os.Getuid() == 0 || !strings.Contains(string(status), "\nCapEff:\t0000000000000000\n") {
		t.Fatalf("the shim is no ordinary user:\n%s", status)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	networktest.Check(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), "shim"), os.NewFile(uintptr(fds[1]), "vmm")
	vmm := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.timeout=60s")
	vmm.Env = append(os.Environ(), tapRole+"=vmm")
	vmm.ExtraFiles = []*os.File{theirs}
	vmm.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		Pdeathsig:   syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	var out bytes.Buffer
	vmm.Stdout, vmm.Stderr = &out, &out
	networktest.Check(t, vmm.Start())
	theirs.Close()
	c, err := net.FileConn(ours)
	networktest.Check(t, err)
	ours.Close()
	conn := c.(*net.UnixConn)
	defer conn.Close()

	tap, err := receiveFile(conn)
	if err != nil {
		vmm.Wait()
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	networktest.Check(t, err)
	defer ln.Close()
	var served sync.WaitGroup
	defer served.Wait()
	served.Go(func() {
		peer, err := ln.Accept()
		if err != nil {
			return
		}
		defer peer.Close()
		io.Copy(peer, peer)
	})
	policy, err := notation.ParsePolicy(fmt.Sprintf("allow host tcp:%d\nallow name.example\ndefault deny", portOf(ln)))
	networktest.Check(t, err)
	z := &zone{}
	z.set("name.example", "60 A 8.8.8.8")
	stack, err := netstack.New(netstack.NewTap(tap), netstack.Config{MAC: network.MAC(guestID), Policy: policy,
		Lookup: z.exchange, Log: slog.New(slog.DiscardHandler)})
	networktest.Check(t, err)
	defer stack.Close()
	fmt.Fprintln(conn, portOf(ln))
	if err := vmm.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.Bytes())
	}
	ln.Close()
}

func receiveFile(conn *net.UnixConn) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(err, errors.New("no descriptor came"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "tap"), nil
}

// tapVMM is the process inside of the namespace. It makes the tap and hands out its other side.
// Then it is a VMM that opens the tap by its name, without any capability.
func tapVMM(t *testing.T) {
	f, err := net.FileConn(os.NewFile(3, "shim"))
	networktest.Check(t, err)
	conn := f.(*net.UnixConn)
	defer conn.Close()
	tap, err := netstack.MakeTap("tap0", os.Geteuid())
	networktest.Check(t, err)
	_, _, err = conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(tap.Fd())), nil)
	networktest.Check(t, err)
	tap.Close()
	links, err := netlink.LinkList()
	networktest.Check(t, err)
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	networktest.Check(t, err)
	if len(links) != 2 || len(addrs) != 0 {
		t.Errorf("the namespace has %d links and %v, not lo and the tap without any address", len(links), addrs)
	}
	guest := networktest.NewNamespace(t)
	var inner *os.File
	guest.In(t, func() (err error) {
		inner, err = networktest.OpenTap("eth0")
		return err
	})
	outer := openTapWithoutRights(t, "tap0")
	networktest.PumpFrames(t, inner, outer)
	guest.In(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		mac, _ := net.ParseMAC(network.MAC(guestID))
		return errors.Join(netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetMTU(l, network.UserMTU),
			networktest.SetUp("eth0", network.UserGuest.String()+"/24", network.UserGateway.String()))
	})
	var port int
	_, err = fmt.Fscan(conn, &port)
	networktest.Check(t, err)
	tapGuest(t, guest, port)
}

// openTapWithoutRights opens the tap on a thread that has given up all capabilities.
func openTapWithoutRights(t *testing.T, name string) (f *os.File) {
	t.Helper()
	ns, err := os.Open("/proc/thread-self/ns/net")
	networktest.Check(t, err)
	defer ns.Close()
	networktest.Check(t, (&networktest.Namespace{File: ns}).Try(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		var err error
		f, err = networktest.OpenTap(name)
		return err
	}))
	return f
}

// tapGuest checks that the guest can use the network as its policy allows.
func tapGuest(t *testing.T, guest *networktest.Namespace, port int) {
	guest.In(t, func() error {
		conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(network.UserGateway, uint16(port)).String(), patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		sent := bytes.Repeat([]byte("there and back "), 100000)
		go func() { // ends with the connection
			conn.Write(sent)
			conn.(*net.TCPConn).CloseWrite()
		}()
		conn.SetReadDeadline(time.Now().Add(patience))
		back, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(back, sent) {
			return fmt.Errorf("%d of %d bytes came back: %w", len(back), len(sent), err)
		}
		return nil
	})
	guest.In(t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r, err := dns.ExchangeContext(ctx, new(dns.Msg).SetQuestion("name.example.", dns.TypeA),
			netip.AddrPortFrom(network.UserDNS, 53).String())
		if err != nil || len(r.Answer) != 1 || dns.Field(r.Answer[0], 1) != "8.8.8.8" {
			return fmt.Errorf("DNS says %v, %w", r, err)
		}
		return nil
	})
	err := guest.Try(func() error {
		conn, err := net.DialTimeout("tcp4", "8.8.4.4:80", patience)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("what the policy forbids is %v, not refused", err)
	}
}

// TestATapNeedsItsDevice: an error says what to do.
func TestATapNeedsItsDevice(t *testing.T) {
	n := networktest.NewNamespace(t)
	err := n.Try(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := errors.Join(unix.Setfsuid(65534), unix.Capset(&header, &none[0])); err != nil {
			return err
		}
		_, err := netstack.MakeTap("tap0", os.Geteuid())
		return err
	})
	if c := banger.CodeOf(err); c != banger.CodeDenied && c != banger.CodeUnavailable {
		t.Errorf("it is %v", err)
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", "tap0")); err == nil {
		t.Error("a tap is left")
	}
}
