package bridge

import (
	"context"
	"errors"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"banger"
)

// How long Watch waits after an error and between two repairs.
const (
	watchRetry = time.Second
	watchPause = 20 * time.Millisecond
)

// Watch repairs what other programs change, until ctx ends. It passes errors to report and tries
// again. After a change by Apply itself, it checks once more and finds nothing to do.
func (b *Bridge) Watch(ctx context.Context, report func(error)) error {
	ns := netns.NsHandle(int(b.ns.Fd()))
	nft, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "watch nftables: %w", err)
	}
	defer nft.Close()
	route, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_TC)
	if err != nil {
		return banger.Errorf(banger.CodeUnavailable, "watch links: %w", err)
	}
	defer route.Close()
	changed := make(chan struct{}, 1)
	ended := make(chan struct{}, 2)
	ctx, cancel := context.WithCancel(ctx)
	for _, s := range []*nl.NetlinkSocket{nft, route} {
		go func() {
			defer func() { ended <- struct{}{} }()
			listen(ctx, s, changed)
		}()
	}
	defer func() {
		cancel()
		<-ended
		<-ended
	}()
	b.repair(ctx, changed, report)
	return ctx.Err()
}

// listen signals on changed that a message has come or was lost. It checks ctx often enough to end
// soon.
func listen(ctx context.Context, s *nl.NetlinkSocket, changed chan<- struct{}) {
	timeout := unix.NsecToTimeval(int64(200 * time.Millisecond))
	if err := s.SetReceiveTimeout(&timeout); err != nil {
		return
	}
	for ctx.Err() == nil {
		_, _, err := s.Receive()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			continue
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func (b *Bridge) repair(ctx context.Context, changed <-chan struct{}, report func(error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer.C:
		}
		wait, err := b.again(ctx)
		if err != nil && ctx.Err() == nil {
			report(err)
			wait = watchRetry
		}
		timer.Reset(wait)
		pause := time.NewTimer(watchPause) // a program that flushes in a loop must not use up a CPU
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// again repeats the latest Apply. It returns when to do so again because a name expires.
func (b *Bridge) again(ctx context.Context) (time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.applied {
		return time.Hour, nil
	}
	err := b.apply(ctx)
	if next, ok := b.nextExpiry(time.Now()); ok {
		return max(time.Until(next), watchPause), err
	}
	return time.Hour, err
}
