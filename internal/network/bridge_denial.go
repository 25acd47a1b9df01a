package network

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	nflog "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"banger"
)

// Refused packets go to a group of the kernel's log (nft(8), "LOG STATEMENT"), with
// as much of them as says where they wanted to.
const (
	logGroup   = 24710
	logSnaplen = 64 // bytes
)

// maxDenialRate is how many refused packets are told in a second. What is more stays
// with the kernel, which drops it: a flood must not cost a CPU.
const maxDenialRate = 200

const ruleBridge = "built in: VMs of other networks are not reached"

// followDenials tells what the tables refuse, until ctx ends.
func (h *BridgeHost) followDenials(ctx context.Context, b *Bridge) error {
	log, err := nflog.Open(&nflog.Config{Group: logGroup, Copymode: nflog.CopyPacket, Bufsize: logSnaplen, NetNS: int(b.ns.Fd())})
	if err != nil {
		return err
	}
	defer log.Con.Close() // log.Close waits on a group that its reader may only now join; the reader ends by itself
	if err := log.SetOption(netlink.NoENOBUFS, true); err != nil {
		return err
	}
	broken := make(chan error, 1)
	window, told := time.Now(), 0
	take := func(a nflog.Attribute) int {
		if told++; told > maxDenialRate {
			if !pause(ctx, time.Until(window.Add(time.Second))) {
				return 0 // the reader ends by ctx
			}
		}
		if time.Since(window) >= time.Second {
			window, told = time.Now(), 0
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

// refused tells of one packet, of which the beginning is known (RFC 791, 3.1).
func (h *BridgeHost) refused(b *Bridge, p []byte) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return
	}
	from, _ := netip.AddrFromSlice(p[12:16])
	to, _ := netip.AddrFromSlice(p[16:20])
	who := h.guest(from)
	if who == nil {
		return
	}
	f := &flow{flowKey: flowKey{proto: Protocol(fmt.Sprint(p[9])), dst: netip.AddrPortFrom(to, 0)}, names: b.toldNames(who.id, to)}
	switch head := p[int(p[0]&15)*4%len(p):]; p[9] {
	case unix.IPPROTO_ICMP:
		f.proto = ICMP
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		f.proto = map[byte]Protocol{unix.IPPROTO_TCP: TCP, unix.IPPROTO_UDP: UDP}[p[9]]
		if len(head) >= 4 {
			f.src = binary.BigEndian.Uint16(head)
			f.dst = netip.AddrPortFrom(to, binary.BigEndian.Uint16(head[2:]))
		}
	}
	_, ok, why := who.guard.decide(f)
	if ok {
		why = ruleBridge
	}
	who.guard.deny(banger.Denial{Protocol: string(f.proto), Source: f.source(), Address: to.String(), Port: f.dst.Port(), Name: strings.Join(f.names, ","), Rule: why})
}

// toldNames returns the names by which a VM was told an address, in order.
func (b *Bridge) toldNames(id string, addr netip.Addr) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(valid(b.learned[id].names[addr], time.Now())))
}

// runDenials is followDenials for a goroutine: without it nothing but the log is
// lost.
func (h *BridgeHost) runDenials(ctx context.Context, b *Bridge) {
	if err := h.followDenials(ctx, b); err != nil {
		h.log.Warn("refused packets are not told", slog.Any("err", err))
	}
}
