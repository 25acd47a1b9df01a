package denial

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/guest"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestADenialDoesNotWaitForItsProcess checks that each denial is recorded, whether or not the agent knows the process.
func TestADenialDoesNotWaitForItsProcess(t *testing.T) {
	log := NewLog()
	a := NewAttribution(guest.Client{Dial: func(context.Context) (net.Conn, error) {
		return nil, errors.New("the agent does not answer")
	}}, log)
	tcp, dns, other := newDenial(1), newDenial(2), newDenial(3)
	tcp.Source, dns.Source, other.Source = 50000, 50001, 50002
	dns.Protocol = "dns"
	a.Refuse(tcp)
	if list := written(t, log, -1); len(list) != 1 {
		t.Errorf("before the guest gets its refusal there are %+v", list)
	}
	a.Note(dns)
	a.Wait()
	a.asking <- struct{}{} // another question is open
	a.Refuse(other)
	<-a.asking
	a.Refuse(other)
	list := written(t, log, -1)
	if len(list) != 3 || list[2].Count != 2 || list[0].PID != 0 {
		t.Errorf("they are %+v", list)
	}
}

// newDenial returns the n-th denial of a test, each of them a second after the one before.
func newDenial(n int) banger.Denial {
	return banger.Denial{Time: time.Unix(int64(n), 0).UTC(), Protocol: "tcp", Address: "192.0.2.1", Port: uint16(n),
		Rule: "default deny"}
}

// TestTheLastDenialsAreKept adds more denials than are kept.
func TestTheLastDenialsAreKept(t *testing.T) {
	d := NewLog()
	const all = maxDenials + maxDenials/4
	for n := range all {
		d.Add(newDenial(n))
	}
	for tail, want := range map[int]int{-1: all - maxDenials/2, 3: 3, 0: 0, 10 * maxDenials: all - maxDenials/2} {
		list := written(t, d, tail)
		if len(list) != want || want > 0 && list[len(list)-1].Port != all-1 {
			t.Errorf("of the last %d there are %d", tail, len(list))
		}
	}
	path := filepath.Join(t.TempDir(), "denials")
	check(t, d.Save(path))
	if text, err := os.ReadFile(path); err != nil || bytes.Count(text, []byte("\n")) != all-maxDenials/2 {
		t.Errorf("saved are %d bytes, %v", len(text), err)
	}
}

func written(t *testing.T, d *Log, tail int) (list []banger.Denial) {
	t.Helper()
	var out bytes.Buffer
	check(t, d.Write(t.Context(), nil, tail, false, &out))
	for dec := json.NewDecoder(&out); dec.More(); {
		var n banger.Denial
		check(t, dec.Decode(&n))
		list = append(list, n)
	}
	return list
}

// TestDenialsThatRepeatAreCounted within a second, and only if they are the same.
func TestDenialsThatRepeatAreCounted(t *testing.T) {
	d := NewLog()
	first, other := newDenial(1), newDenial(1)
	other.Port = 2
	late := first
	late.Time = late.Time.Add(denialWindow)
	for _, n := range []banger.Denial{first, first, other, first, late} {
		d.Add(n)
	}
	list := written(t, d, -1)
	if len(list) != 3 || list[0].Count != 3 || list[1].Count != 0 || list[2].Count != 0 {
		t.Errorf("they are %+v", list)
	}
}

// TestDenialsAreFollowed until the VMM ends, the client has gone, or it takes no more.
func TestDenialsAreFollowed(t *testing.T) {
	broken := errors.New("no more")
	for name, end := range map[string]func(ended chan struct{}, interrupt func(), r *io.PipeReader){
		"the VMM ends":        func(ended chan struct{}, _ func(), _ *io.PipeReader) { close(ended) },
		"the client has gone": func(_ chan struct{}, interrupt func(), _ *io.PipeReader) { interrupt() },
		"it takes no more":    func(_ chan struct{}, _ func(), r *io.PipeReader) { r.CloseWithError(broken) },
	} {
		t.Run(name, func(t *testing.T) {
			d, ended := NewLog(), make(chan struct{})
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			r, w := io.Pipe()
			over := make(chan error, 1)
			go func() { over <- d.Write(ctx, ended, -1, true, w) }()
			lines := json.NewDecoder(r)
			for n := range 3 {
				d.Add(newDenial(n))
				var got banger.Denial
				if err := lines.Decode(&got); err != nil || got.Port != uint16(n) {
					t.Errorf("it is %+v, %v", got, err)
				}
			}
			end(ended, interrupt, r)
			d.Add(newDenial(9)) // only a client that takes no more notices by this
			go io.Copy(io.Discard, r)
			if err := <-over; name == "it takes no more" != errors.Is(err, broken) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}
