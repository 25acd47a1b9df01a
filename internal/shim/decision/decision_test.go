package decision

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	tcp, dns, other := refused(1), refused(2), refused(3)
	tcp.Source, dns.Source, other.Source = 50000, 50001, 50002
	dns.Protocol = "dns"
	a.Decide(tcp)
	if list := written(t, log, -1); len(list) != 1 {
		t.Errorf("before the guest gets its refusal there are %+v", list)
	}
	a.Note(dns)
	a.wg.Wait()
	a.refusal <- struct{}{} // another question is open
	a.Decide(other)
	<-a.refusal
	a.Decide(other)
	list := written(t, log, -1)
	if len(list) != 3 || list[2].Count != 2 || list[0].PID != 0 {
		t.Errorf("they are %+v", list)
	}
}

// refused returns the n-th denial of a test, each of them a second after the one before.
func refused(n int) banger.Decision {
	return banger.Decision{Time: time.Unix(int64(n), 0).UTC(), Protocol: "tcp", Address: "192.0.2.1", Port: uint16(n),
		Rule: "default deny"}
}

// TestTheLastDenialsAreKept adds more denials than are kept.
func TestTheLastDenialsAreKept(t *testing.T) {
	d := NewLog()
	const all = kept + kept/4
	for n := range all {
		d.Add(refused(n))
	}
	for tail, want := range map[int]int{-1: all - kept/2, 3: 3, 0: 0, 10 * kept: all - kept/2} {
		list := written(t, d, tail)
		if len(list) != want || want > 0 && list[len(list)-1].Port != all-1 {
			t.Errorf("of the last %d there are %d", tail, len(list))
		}
	}
	path := filepath.Join(t.TempDir(), "denials")
	check(t, d.Save(path))
	if text, err := os.ReadFile(path); err != nil || bytes.Count(text, []byte("\n")) != all-kept/2 {
		t.Errorf("saved are %d bytes, %v", len(text), err)
	}
}

func written(t *testing.T, d *Log, tail int) (list []banger.Decision) {
	t.Helper()
	var out bytes.Buffer
	check(t, d.Write(t.Context(), nil, true, tail, false, &out))
	for dec := json.NewDecoder(&out); dec.More(); {
		var n banger.Decision
		check(t, dec.Decode(&n))
		list = append(list, n)
	}
	return list
}

// TestDenialsThatRepeatAreCounted within a second, and only if they are the same.
func TestDenialsThatRepeatAreCounted(t *testing.T) {
	d := NewLog()
	first, other := refused(1), refused(1)
	other.Port = 2
	by := first
	by.Rule = "deny any"
	late := first
	late.Time = late.Time.Add(window)
	for _, n := range []banger.Decision{first, first, other, first, late, by} {
		d.Add(n)
	}
	list := written(t, d, -1)
	if len(list) != 4 || list[0].Count != 3 || list[1].Count != 0 || list[2].Count != 0 {
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
			go func() { over <- d.Write(ctx, ended, true, -1, true, w) }()
			lines := json.NewDecoder(r)
			for n := range 3 {
				d.Add(refused(n))
				var got banger.Decision
				if err := lines.Decode(&got); err != nil || got.Port != uint16(n) {
					t.Errorf("it is %+v, %v", got, err)
				}
			}
			end(ended, interrupt, r)
			d.Add(refused(9)) // only a client that takes no more notices by this
			go io.Copy(io.Discard, r)
			if err := <-over; name == "it takes no more" != errors.Is(err, broken) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// allowed returns the n-th flow of a test.
func allowed(n int) banger.Decision {
	d := refused(n)
	d.Allowed, d.Rule = true, "default allow"
	return d
}

// TestFlowsNeverPushRefusalsOut adds more flows than are kept to two refusals.
func TestFlowsNeverPushRefusalsOut(t *testing.T) {
	l := NewLog()
	l.Add(refused(0))
	for n := range 5 * kept {
		l.Add(allowed(n + 1))
	}
	l.Add(refused(7 * kept))
	list := written(t, l, -1)
	if len(list) > kept+2 || list[0].Allowed || list[0].Port != 0 || list[len(list)-1].Allowed {
		t.Errorf("of %d decisions the first is %+v and the last %+v", len(list), list[0], list[len(list)-1])
	}
	var out bytes.Buffer
	check(t, l.Write(t.Context(), nil, false, -1, false, &out))
	if n := bytes.Count(out.Bytes(), []byte("\n")); n != 2 {
		t.Errorf("%d refusals are written", n)
	}
}

// TestDecisionsAreInOrderOfTime adds a flow whose process was found late.
func TestDecisionsAreInOrderOfTime(t *testing.T) {
	l := NewLog()
	for _, d := range []banger.Decision{allowed(2), refused(3), allowed(4), refused(1)} {
		l.Add(d)
	}
	for n, d := range written(t, l, 3) {
		if int(d.Port) != n+2 {
			t.Errorf("at place %d is %+v", n, d)
		}
	}
}

// TestAFlowDoesNotWaitForItsProcess allows flows while the agent answers nothing. None of them waits, a question about
// a refusal does not wait for theirs, and all are recorded at the end.
func TestAFlowDoesNotWaitForItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog()
		var asked atomic.Int32
		a := NewAttribution(guest.Client{Dial: func(ctx context.Context) (net.Conn, error) {
			asked.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}, l)
		begun := time.Now()
		for n := range 2 * maxFlows {
			d := allowed(n)
			d.Time, d.Source = begun, uint16(50000+n)
			a.Decide(d)
		}
		if !time.Now().Equal(begun) {
			t.Errorf("flows have waited for %s", time.Since(begun))
		}
		d := refused(1)
		d.Time, d.Source = begun, 40000
		a.Decide(d)
		if took := time.Since(begun); took != refusalWait || asked.Load() != 2 {
			t.Errorf("the refusal has waited for %s, after %d questions", took, asked.Load())
		}
		time.Sleep(2 * flowTime)
		if list := written(t, l, -1); len(list) != 2*maxFlows+1 || asked.Load() != 2 {
			t.Errorf("%d decisions are recorded after %d questions", len(list), asked.Load())
		}
		a.Close()
	})
}

// TestSimilarFlowsAreAskedForOnce begins several connections to one place at once, as browsers do.
func TestSimilarFlowsAreAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog()
		var asked atomic.Int32
		a := NewAttribution(guest.Client{Dial: func(context.Context) (net.Conn, error) {
			asked.Add(1)
			return nil, errors.New("the agent does not answer")
		}}, l)
		for n := range 6 {
			d := allowed(1)
			d.Time, d.Source = time.Now(), uint16(50000+n)
			a.Decide(d)
		}
		time.Sleep(flowTime)
		a.Close()
		if list := written(t, l, -1); len(list) != 1 || list[0].Count != 6 || asked.Load() != 1 {
			t.Errorf("after %d questions they are %+v", asked.Load(), list)
		}
	})
}

// TestQuestionsAboutFlowsAreFew begins hundreds of flows in a second. The agent is asked 20 times at most, and each
// flow is recorded.
func TestQuestionsAboutFlowsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog()
		var asked atomic.Int32
		a := NewAttribution(guest.Client{Dial: func(context.Context) (net.Conn, error) {
			asked.Add(1)
			return nil, errors.New("the agent does not answer")
		}}, l)
		const flows = 900 // fewer than are kept
		for n := range flows {
			d := allowed(n)
			d.Time, d.Source = time.Now(), uint16(1+n)
			a.Decide(d)
			time.Sleep(time.Second / flows)
		}
		if n := asked.Load(); n > int32(time.Second/flowRest) {
			t.Errorf("there are %d questions", n)
		}
		a.Close()
		if list := written(t, l, -1); len(list) != flows {
			t.Errorf("%d flows are recorded", len(list))
		}
	})
}
