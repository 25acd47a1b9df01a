// Package bridge is the networks that the host's kernel makes for root: bridges, taps, nftables
// that hold the policies, routing rules, and the repair of all that. Host is the bridge mode of
// one daemon, with the resolver of its VMs.
//
// The package must not know of gVisor, VMMs, images, rows or HTTP.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"banger/internal/network/bridge/nft"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"banger"
)

// Bridge owns the bridge mode's state in one network namespace: bridges, taps, two nftables tables
// named banger, some routing rules, and the forwarding of the links to the outside. It needs
// CAP_NET_ADMIN and CAP_SYS_ADMIN there.
//
// The tables decide, but other programs can flush them. So the tables only mark packets that may
// pass. Packets without a mark are dropped by fences that are not part of the ruleset: a classifier
// on each bridge, and routing rules. Ports are isolated from each other and locked to their MAC
// address. VMs of one network therefore also reach each other through the host's routing and its
// tables.
//
// Everything that Bridge makes can be found again by its name. A new Bridge can replace one that
// died at any point: its Apply makes what should exist and removes the rest.
type Bridge struct {
	saved string // path of the file with the host's settings before we changed them
	ns    *os.File
	nl    *netlink.Handle
	route *nl.SocketHandle
	nft   *nft.Conn

	mu      sync.Mutex
	config  Config
	applied bool
	learned map[string]learnedNames // by the VM's id

	// Of the present Apply:
	changed map[netip.Addr]bool // ports whose policy changed since their tap was configured
	fresh   map[netip.Addr]bool // ports without a tap
	dirty   bool                // the tables were changed
}

// Open returns the owner of the bridge mode's state in the calling thread's
// network namespace. Saved is the path of a file with the settings of the host before they
// were changed, which exists only while there is something to restore. There must be one owner
// at a time.
func Open(saved string) (*Bridge, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, banger.Errorf(banger.CodeInternal, "open the network namespace: %w", err)
	}
	b := &Bridge{saved: saved, ns: ns, learned: map[string]learnedNames{}}
	if err := b.open(); err != nil {
		b.Close()
		return nil, banger.Errorf(banger.CodeUnavailable, "open netlink: %w", err).
			WithHint("the bridge mode needs root, and the kernel's nf_tables")
	}
	return b, nil
}

func (b *Bridge) open() (err error) {
	ns := netns.NsHandle(int(b.ns.Fd()))
	if b.nl, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	socket, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	b.route = &nl.SocketHandle{Socket: socket}
	b.nft, err = nft.Open(int(b.ns.Fd()))
	return err
}

// Close ends the connections to the kernel. What was applied stays in force.
func (b *Bridge) Close() {
	if b.nft != nil {
		_ = b.nft.CloseLasting()
	}
	if b.route != nil {
		b.route.Close()
	}
	if b.nl != nil {
		b.nl.Close()
	}
	_ = b.ns.Close()
}

func (b *Bridge) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: b.route}
	return req
}

// inside runs f on a thread of the namespace. Devices are made in the namespace of the thread that
// opens /dev/net/tun, and /proc/sys/net shows the namespace of the reader.
func (b *Bridge) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its goroutine
		if err := unix.Setns(int(b.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Apply makes the namespace match c, which it checks first, and removes everything else of ours. A
// policy is in force before its tap can carry a frame. When Apply returns, flows that a changed
// policy forbids have ended. Apply does not touch what is already right. After an error some
// changes may be missing, and the affected VMs then reach less than allowed; call Apply again.
func (b *Bridge) Apply(ctx context.Context, c Config) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken, err := b.taken()
	if err != nil {
		return failed("list the host's routes", err)
	}
	if err := c.Check(taken); err != nil {
		return err
	}
	b.config, b.applied = c.sorted(), true
	return b.apply(ctx)
}

func (b *Bridge) apply(ctx context.Context) error {
	c := b.config
	b.forgetPorts()
	steps := []struct {
		what string
		do   func(Config) error
	}{
		{"remove links", b.removeLinks},
		{"compare ports", b.comparePorts},
		{"make bridges", b.syncBridges},
		{"make routing rules", b.syncRules},
		{"make the tables", b.syncNft},
		{"end flows", b.endFlows},
		{"make taps", b.syncTaps},
		{"switch forwarding", b.syncForwarding},
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return banger.Errorf(banger.CodeCanceled, "%s: %w", step.what, err)
		}
		if err := b.inside(func() error { return step.do(c) }); err != nil {
			return failed(step.what, err)
		}
	}
	return nil
}

// Remove removes everything of ours and restores the host's settings.
func (b *Bridge) Remove(ctx context.Context) error { return b.Apply(ctx, Config{}) }

// syncNft applies the tables. If another program changes them meanwhile, it tries again on a new
// connection, because an error may leave answers in the old one.
func (b *Bridge) syncNft(c Config) (err error) {
	for range 5 {
		if err = b.tryNft(c); err == nil {
			return nil
		}
		_ = b.nft.CloseLasting()
		fresh, failure := nft.Open(int(b.ns.Fd()))
		if failure != nil {
			return errors.Join(err, failure)
		}
		b.nft = fresh
	}
	return err
}

func (b *Bridge) tryNft(c Config) error {
	if len(c.Networks) == 0 {
		return b.nft.Drop(Config{}.tables())
	}
	tables := c.tables()
	b.addLearned(tables, time.Now())
	changed, err := b.nft.Sync(tables, b.keeps)
	b.dirty = b.dirty || changed
	return err
}

func failed(what string, err error) error {
	return banger.Errorf(banger.CodeUnavailable, "bridge network: %s: %w", what, err).
		WithHint("is this root, with the modules bridge, tun, nf_tables and cls_bpf?")
}

// sysctl sets a value of a link, in the thread's network namespace.
func sysctl(link, key, value string) error {
	path := sysctlPath(link, key)
	have, err := os.ReadFile(path)
	if os.IsNotExist(err) && key == "disable_ipv6" {
		return nil // a kernel without IPv6
	}
	if err != nil || strings.TrimSpace(string(have)) == value {
		return err
	}
	return os.WriteFile(path, []byte(value), 0o644)
}

func sysctlPath(link, key string) string {
	switch key {
	case "disable_ipv6":
		return "/proc/sys/net/ipv6/conf/" + link + "/" + key
	case "proxy_delay":
		return "/proc/sys/net/ipv4/neigh/" + link + "/" + key
	}
	return "/proc/sys/net/ipv4/conf/" + link + "/" + key
}
