package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/network"
	"banger/internal/network/nameserver"
	"banger/internal/network/policy"
	"banger/internal/private"
)

// MTU is the largest packet of a bridge's links in bytes.
const MTU = 1500

// Host is the bridge mode of one daemon: the Bridge, its repair, and the resolver of its VMs, which
// is at their gateway. After Close, what was applied stays in force, except for the resolver. While
// nothing is applied, Host uses no resources.
type Host struct {
	// Asked is told of each VM whose name was asked for. It does not wait. It may be nil, and is set before Apply.
	Asked func(id string)

	dir    string
	lookup network.Exchange
	denied func(id string, d banger.Decision)
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // of Watch

	apply  sync.Mutex   // held while the configuration changes
	bridge *Bridge      // nil while nothing is applied
	owner  func() error // releases the lock of the namespace
	watch  context.CancelFunc
	listen map[netip.Addr]*networkServer // by the gateway's address

	mu     sync.Mutex // held to read or change what the resolvers need
	config Config
	vms    map[netip.Addr]*bridgedVM // by address
}

// bridgedVM is a VM with a port, and how its questions are answered.
type bridgedVM struct {
	nameserver.Guest
	id string
}

// networkServer answers the questions of one network.
type networkServer struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// NewHost returns the bridge mode of the calling process's network namespace. While something is
// applied, it keeps two files in dir, with which the next Host finds what this one leaves. lookup
// asks the host's resolver. denied gets what was refused to the VM with that id.
func NewHost(dir string, lookup network.Exchange, denied func(id string, d banger.Decision), log *slog.Logger) *Host {
	h := &Host{dir: dir, lookup: lookup, denied: denied, log: log, listen: map[netip.Addr]*networkServer{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// The files of a Host.
const (
	savedFile = "bridge.json"
	inUseFile = "bridge.used"
)

// lockDir is where each network namespace has a lock: two daemons would undo each other's work.
// Only root writes there.
const lockDir = "/run"

// lockName is a unix socket without a file, of which each network namespace has one (unix(7)). It is
// the lock of a daemon that is root only in a namespace of its own, which no other user enters.
const lockName = "@banger/bridge"

// ownerWait is how long a daemon that was killed may need to be gone.
const ownerWait = time.Second

// takeLock takes the lock of the calling thread's network namespace, and returns what releases it.
func takeLock() (release func() error, err error) {
	ns, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	st, ok := ns.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, errors.New("the network namespace has no number")
	}
	const what, hint = "another daemon%s owns the bridges of this host", "use --network user, or that daemon"
	lock, before, err := private.Take(lockDir, fmt.Sprintf("banger-bridge-%d.lock", st.Ino), ownerWait)
	switch {
	case errors.Is(err, private.ErrLocked):
		return nil, banger.Errorf(banger.CodeConflict, what, fmt.Sprintf(", process %d,", before.PID)).WithHint(hint)
	case errors.Is(err, fs.ErrPermission):
		ln, err := net.Listen("unix", lockName)
		if err != nil {
			return nil, banger.Errorf(banger.CodeConflict, what, "").WithHint(hint)
		}
		return ln.Close, nil
	case err != nil:
		return nil, banger.Errorf(banger.CodeUnavailable, "cannot take the lock of the bridges in %s: %w", lockDir, err)
	}
	if err := lock.Write(private.Owner{PID: os.Getpid()}); err != nil {
		lock.Remove()
		return nil, err
	}
	return lock.Remove, nil
}

// open takes the lock of the namespace and makes the Bridge.
func (h *Host) open() error {
	owner, err := takeLock()
	if err != nil {
		return err
	}
	b, err := Open(filepath.Join(h.dir, savedFile))
	if err == nil {
		if err = os.WriteFile(filepath.Join(h.dir, inUseFile), nil, 0o600); err != nil {
			b.Close()
		}
	}
	if err != nil {
		owner()
		return err
	}
	h.bridge, h.owner = b, owner
	return nil
}

func (h *Host) release() {
	if h.bridge != nil {
		h.bridge.Close()
		h.owner()
		h.bridge, h.owner = nil, nil
	}
}

// Close ends repair and resolver.
func (h *Host) Close() {
	h.cancel()
	h.apply.Lock()
	defer h.apply.Unlock()
	h.syncResolvers(nil)
	h.wg.Wait()
	h.release()
}

// Apply calls Bridge.Apply and serves the networks in c. It also logs an error, and tries again
// later what has failed.
func (h *Host) Apply(ctx context.Context, c Config) error {
	h.apply.Lock()
	defer h.apply.Unlock()
	err := h.applyOnce(ctx, c)
	if err != nil {
		h.log.Warn("the bridge network", "err", err)
	}
	return err
}

func (h *Host) applyOnce(ctx context.Context, c Config) error {
	inUse := filepath.Join(h.dir, inUseFile)
	if h.bridge == nil {
		if _, err := os.Stat(inUse); err != nil && len(c.Networks) == 0 {
			return nil
		}
		if err := h.open(); err != nil {
			return err
		}
	}
	if err := h.bridge.Apply(ctx, c); err != nil {
		h.keepWatch(true)
		return err
	}
	h.mu.Lock()
	old := h.vms
	h.config, h.vms = c.sorted(), map[netip.Addr]*bridgedVM{}
	for _, p := range c.Ports {
		h.vms[p.Address] = h.newVM(p, old[p.Address])
	}
	h.mu.Unlock()
	h.keepWatch(len(c.Networks) > 0)
	if err := h.syncResolvers(c.Networks); err != nil || len(c.Networks) > 0 {
		return err
	}
	h.release()
	return os.Remove(inUse)
}

// newVM returns the VM of a port. If old is the same VM, newVM returns old with the port's policy,
// and keeps its learned names.
func (h *Host) newVM(p Port, old *bridgedVM) *bridgedVM {
	if old != nil && old.id == p.ID {
		old.Guard.Set(p.Policy)
		return old
	}
	vm := &bridgedVM{id: p.ID}
	vm.Guard = policy.NewGuard(p.Policy, func(d banger.Decision) { h.denied(p.ID, d) })
	vm.Lookup, vm.Log, vm.Gateway = h.lookup, h.log, h.config.network(p.Network).Gateway()
	vm.Own = func(q *dns.Msg, name string) *dns.Msg { return h.visibleTo(p.ID).answer(q, name) }
	b := h.bridge // it has the VM's port
	vm.Learn = func(ctx context.Context, chain []string, addr netip.Addr, ttl time.Duration) error {
		for _, name := range chain {
			if err := b.Learn(ctx, p.ID, name, addr, ttl); err != nil {
				return err
			}
		}
		return nil
	}
	return vm
}

// keepWatch repairs while there is something to repair.
func (h *Host) keepWatch(on bool) {
	if !on && h.watch != nil {
		h.watch()
		h.wg.Wait()
		h.watch = nil
	}
	if !on || h.watch != nil {
		return
	}
	ctx, cancel := context.WithCancel(h.ctx)
	h.watch = cancel
	b := h.bridge
	h.wg.Go(func() { h.runDenials(ctx, b) })
	h.wg.Go(func() {
		err := b.Watch(ctx, func(err error) { h.log.Warn("repairing the bridge", "err", err) })
		if ctx.Err() == nil {
			h.log.Error("the bridge is not watched any more", "err", err)
		}
	})
}

// syncResolvers opens a resolver for each network and closes the others.
func (h *Host) syncResolvers(networks []Network) error {
	want := map[netip.Addr]bool{}
	for _, n := range networks {
		want[n.Gateway()] = true
	}
	for at, r := range h.listen {
		if !want[at] {
			r.cancel()
			r.wg.Wait()
			delete(h.listen, at)
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		if h.listen[at] != nil {
			continue
		}
		var pc net.PacketConn
		var ln net.Listener
		err := h.bridge.inside(func() (err error) {
			if pc, err = net.ListenPacket("udp4", netip.AddrPortFrom(at, 53).String()); err != nil {
				return err
			}
			if ln, err = net.Listen("tcp4", netip.AddrPortFrom(at, 53).String()); err != nil {
				pc.Close()
			}
			return err
		})
		if err != nil {
			return banger.Errorf(banger.CodeUnavailable, "cannot answer the DNS questions of the network of %s: %w", at, err).
				WithHint("does a resolver of the host listen on all addresses?")
		}
		r := &networkServer{}
		ctx, cancel := context.WithCancel(h.ctx)
		r.cancel = cancel
		nameserver.New(ctx, &r.wg, h.guest).Serve(pc, ln)
		h.listen[at] = r
	}
	return nil
}

// vm returns the VM with an address, or nil.
func (h *Host) vm(from netip.Addr) *bridgedVM {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.vms[from]
}

// guest returns how the questions of the VM with an address are answered, or nil.
func (h *Host) guest(from netip.Addr) *nameserver.Guest {
	if vm := h.vm(from); vm != nil {
		return &vm.Guest
	}
	return nil
}

// OpenTap opens a VM's tap, which Apply made, for its VMM. A tap has one VMM at a time.
func (h *Host) OpenTap(id string) (f *os.File, err error) {
	h.apply.Lock()
	defer h.apply.Unlock()
	if h.bridge == nil {
		return nil, banger.Errorf(banger.CodeInternal, "VM %s has no port on a bridge", id)
	}
	name := Port{ID: id}.Tap()
	err = h.bridge.inside(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
		}
		f = os.NewFile(uintptr(fd), name)
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			f.Close()
			return fmt.Errorf("attach to tap %s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, banger.Errorf(banger.CodeUnavailable, "the bridge network: %w", err)
	}
	return f, nil
}

// Traffic returns how many bytes of frames went to a VM by its tap, and came from it.
func (h *Host) Traffic(id string) (in, out uint64, err error) {
	h.apply.Lock()
	defer h.apply.Unlock()
	if h.bridge == nil {
		return 0, 0, banger.Errorf(banger.CodeInternal, "VM %s has no port on a bridge", id)
	}
	l, err := h.bridge.find(Port{ID: id}.Tap())
	if err != nil || l == nil || l.Attrs().Statistics == nil {
		err = errors.Join(err, unix.ENODEV)
		return 0, 0, banger.Errorf(banger.CodeUnavailable, "the bridge network tells nothing of VM %s: %w", id, err)
	}
	st := l.Attrs().Statistics // of the host's side, which sends what the guest receives
	return st.TxBytes, st.RxBytes, nil
}
