package splice

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"banger/internal/frame"
)

// connected returns the two ends of a stream that can be half-closed.
func connected(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	check(t, err)
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	check(t, err)
	b, err := l.Accept()
	check(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSpliceCopiesBothWays also checks that the end of each direction is passed on.
func TestSpliceCopiesBothWays(t *testing.T) {
	near, a := connected(t)
	b, far := connected(t)
	spliced := make(chan struct{})
	var moved atomic.Uint64
	go func() { Counted(t.Context(), a, b, &moved); close(spliced) }()
	for _, way := range []struct{ from, to *net.UnixConn }{{near, far}, {far, near}} {
		data := make([]byte, 5<<20+7)
		rand.NewChaCha8([32]byte{}).Read(data)
		sent := make(chan error, 1)
		go func() {
			_, err := way.from.Write(data)
			way.from.CloseWrite()
			sent <- err
		}()
		got, err := io.ReadAll(way.to)
		check(t, err)
		check(t, <-sent)
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes come, or others than were sent", len(got))
		}
	}
	<-spliced
	if got := moved.Load(); got != 2*(5<<20+7) {
		t.Errorf("%d bytes are counted", got)
	}
}

// TestSpliceEndsWithItsContext also checks that it closes both connections.
func TestSpliceEndsWithItsContext(t *testing.T) {
	near, a := connected(t)
	b, far := connected(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	Copy(ctx, a, b)
	for _, end := range []net.Conn{near, far} {
		if n, err := end.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("an end reads %d, %v", n, err)
		}
	}
}

// TestReaderGrows once a stream has filled its small buffer.
func TestReaderGrows(t *testing.T) {
	r := newReader()
	defer r.close()
	src := bytes.NewReader(make([]byte, 1<<20))
	small := len(smallBuffer{})
	for _, want := range []int{small - 1, small, frame.Header + frame.MaxData} {
		p, err := r.read(io.LimitReader(src, int64(want)))
		check(t, err)
		if len(p) != want {
			t.Errorf("%d bytes are read of %d", len(p), want)
		}
	}
}

// TestSpliceEndsWhenOneEndHasGone closes one end while the other is silent. An end that is only half-closed has not
// gone.
func TestSpliceEndsWhenOneEndHasGone(t *testing.T) {
	near, a := connected(t)
	b, far := connected(t)
	spliced := make(chan struct{})
	go func() { copyBoth(t.Context(), a, b, 0, new(atomic.Uint64)); close(spliced) }()
	near.CloseWrite()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	fmt.Fprint(far, "x")
	if n, err := near.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("an end that is half-closed reads %v", err)
	}
	near.Close()
	select {
	case <-spliced:
	case <-time.After(10 * time.Second):
		t.Error("the splice goes on without one of its ends")
	}
}
