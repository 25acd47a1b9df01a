package bridge

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"banger"
	"banger/internal/ipaddr"
	"banger/internal/network"
	"banger/internal/network/policy"

	nflog "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Refused packets are sent to a group of the kernel's log (nft(8), "LOG STATEMENT"), with enough of
// their bytes to show the destination.
const (
	logGroup   = 24710
	logSnaplen = 64 // bytes
)

// maxDenialRate is how many refused packets are reported per second. The kernel drops more than
// that, because a flood must not use a whole CPU.
const maxDenialRate = 200

const ruleBridge = "built in: VMs of other networks are not reached"

// followDenials reports what the tables refuse, until ctx ends.
func (h *Host) followDenials(ctx context.Context, b *Bridge) error {
	log, err := nflog.Open(&nflog.Config{
		Group:    logGroup,
		Copymode: nflog.CopyPacket,
		Bufsize:  logSnaplen,
		NetNS:    int(b.ns.Fd()),
	})
	if err != nil {
		return err
	}
	// log.Close waits for a group that its reader may join only now. The reader ends by itself.
	defer log.Con.Close()
	if err := log.SetOption(netlink.NoENOBUFS, true); err != nil {
		return err
	}
	broken := make(chan error, 1)
	window, reported := time.Now(), 0
	take := func(a nflog.Attribute) int {
		if reported++; reported > maxDenialRate {
			if !pause(ctx, time.Until(window.Add(time.Second))) {
				return 0 // the reader ends by ctx
			}
		}
		if time.Since(window) >= time.Second {
			window, reported = time.Now(), 0
		}
		if a.Payload != nil {
			h.refused(b, *a.Payload)
		}
		return 0
	}
	failed := func(err error) int { // ends the reader, as ctx does
		broken <- err
		return 1
	}
	if err := log.RegisterWithErrorFunc(ctx, take, failed); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-broken:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// pause waits and reports whether ctx lives on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// refused reports one packet, of which p is the beginning (RFC 791, 3.1).
func (h *Host) refused(b *Bridge, p []byte) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return
	}
	from, _ := netip.AddrFromSlice(p[12:16])
	to, _ := netip.AddrFromSlice(p[16:20])
	vm := h.vm(from)
	if vm == nil {
		return
	}
	k := network.FlowKey{Protocol: network.Protocol(fmt.Sprint(p[9])), Destination: netip.AddrPortFrom(to, 0)}
	switch head := p[int(p[0]&15)*4%len(p):]; p[9] {
	case unix.IPPROTO_ICMP:
		k.Protocol = network.ICMP
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		k.Protocol = map[byte]network.Protocol{unix.IPPROTO_TCP: network.TCP, unix.IPPROTO_UDP: network.UDP}[p[9]]
		if len(head) >= 4 {
			k.Source = binary.BigEndian.Uint16(head)
			k.Destination = netip.AddrPortFrom(to, binary.BigEndian.Uint16(head[2:]))
		}
	}
	h.mu.Lock()
	closed := h.config.closed(to)
	h.mu.Unlock()
	d := vm.Guard.Explain(k, b.namesFor(vm.id, to), ipaddr.RouteOf(to))
	switch {
	case d.Allowed:
		d.Allowed, d.Rule = false, ruleBridge
	case to == vm.Gateway:
		d.Suggested = policy.RuleFor(k, banger.ToHost)
	case closed || network.UserSubnet.Contains(to):
		d.Suggested = nil
	}
	vm.Guard.Report(d)
}

// namesFor returns the names for which a VM was given an address, in order.
func (b *Bridge) namesFor(id string, addr netip.Addr) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(valid(b.learned[id].names[addr], time.Now())))
}

// runDenials is followDenials for a goroutine. If it fails, only the log is lost.
func (h *Host) runDenials(ctx context.Context, b *Bridge) {
	if err := h.followDenials(ctx, b); err != nil {
		h.log.Warn("refused packets are not reported", slog.Any("err", err))
	}
}
