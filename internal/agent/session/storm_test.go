package session

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
)

// dice makes numbers that look random, and are the same for the same seed (splitmix64).
type dice uint64

func newDice(t *testing.T) *dice {
	var b [8]byte
	rand.Read(b[:])
	d := dice(binary.BigEndian.Uint64(b[:]))
	t.Logf("the seed is %d", d)
	return &d
}

// below returns a number from 0 to n-1.
func (d *dice) below(n int) int {
	*d += 0x9e3779b97f4a7c15
	x := uint64(*d)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int((x ^ x>>31) >> 1 % uint64(n))
}

// relay is what clients have got of a session, one after another.
type relay struct {
	t    *testing.T
	at   uint64 // the position of the next byte
	got  map[frame.Type][]byte
	over bool // a client has seen the end of the session
}

// take adds what a client read, which may end anywhere: in a header, in a stamp, or in data.
func (r *relay) take(b []byte) {
	for len(b) >= frame.Header {
		kind, n := frame.Type(b[0]), int(binary.BigEndian.Uint32(b[4:]))
		b = b[frame.Header:]
		whole := len(b) >= n
		p := b[:min(n, len(b))]
		b = b[len(p):]
		switch {
		case kind == frame.Stdout || kind == frame.Stderr:
			r.got[kind] = append(r.got[kind], p...)
			r.at += uint64(len(p))
		case !whole:
		case kind == frame.Stamp:
			if position, _, ok := frame.ParseStamp(p); !ok || position != r.at {
				r.t.Fatalf("byte %d follows at %d", position, r.at)
			}
		case kind == frame.Exit:
			r.over = true
		case kind != frame.Started:
			r.t.Fatalf("frame %d: %q", kind, p)
		}
	}
}

// client attaches, reads at most n bytes of the stream, whatever they are, and goes away. It returns when the session
// has noticed.
func (r *relay) client(m *Manager, v banger.SessionView, n int) {
	near, far := net.Pipe()
	a, err := m.Attach(far, "storm", v)
	must(r.t, err)
	done := make(chan struct{})
	go func() { // ends with the client
		defer close(done)
		a.Serve(frame.NewReader(far))
		far.Close()
	}()
	near.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, n)
	got := 0
	for err == nil && got < n {
		var k int
		k, err = near.Read(buf[got:])
		got += k
	}
	near.Close()
	<-done
	r.take(buf[:got])
	if got < n && !r.over {
		r.t.Fatalf("a client got %d bytes of its %d: %v", got, n, err)
	}
}

// TestAThousandClientsSeeEachByteOnce has clients that come and go while the command writes numbered lines to both
// streams. Each goes on where the one before was cut off, wherever that was.
func TestAThousandClientsSeeEachByteOnce(t *testing.T) {
	m := manager(t, t.TempDir())
	d := newDice(t)
	goes := filepath.Join(t.TempDir(), "goes")
	must(t, os.WriteFile(goes, nil, 0o600))
	spec := shell("storm", `i=0; while [ -e "$GOES" ]; do echo $i; echo e$i >&2; i=$((i+1)); done`)
	spec.Command.Env = []string{"GOES=" + goes}
	_, err := m.Start(spec)
	must(t, err)
	r := &relay{t: t, got: map[frame.Type][]byte{}}
	for range 1000 {
		at := r.at
		v := banger.SessionView{Position: &at, ReadOnly: d.below(2) == 0}
		if d.below(4) == 0 {
			v = banger.SessionView{Log: &banger.LogView{Tail: -1, Position: at, Follow: true}}
		}
		r.client(m, v, 1+d.below(1<<(1+d.below(15))))
	}
	must(t, os.Remove(goes))
	for at := r.at; !r.over; at = r.at {
		r.client(m, banger.SessionView{Position: &at}, 4<<20)
	}
	end := ended(t, m, "storm")
	t.Logf("the command has written %d bytes", end.End)
	if r.at != end.End || end.First != 0 {
		t.Errorf("the clients got %d bytes of %d to %d", r.at, end.First, end.End)
	}
	count := bytes.Count(r.got[frame.Stdout], []byte("\n"))
	for stream, prefix := range map[frame.Type]string{frame.Stdout: "", frame.Stderr: "e"} {
		var want bytes.Buffer
		for i := range count {
			fmt.Fprintf(&want, "%s%d\n", prefix, i)
		}
		if !bytes.Equal(r.got[stream], want.Bytes()) {
			t.Errorf("stream %d has %d bytes, not the %d of %d lines", stream, len(r.got[stream]), want.Len(), count)
		}
	}
}
