package idle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhatCountsAsUse looks once a minute. Idleness begins with the last look at which the VM was used.
func TestWhatCountsAsUse(t *testing.T) {
	const second = time.Second
	type look struct {
		moved uint64
		cpu   time.Duration
	}
	for name, c := range map[string]struct {
		looks    []look // one a minute; the first begins
		emulated bool
		want     time.Duration
	}{
		"the first look":             {[]look{{7, 100 * second}}, false, 0},
		"nothing":                    {[]look{{7, 99 * second}, {7, 99 * second}, {7, 99 * second}}, false, 2 * time.Minute},
		"a byte":                     {[]look{{7, 0}, {7, 0}, {8, 0}, {8, 0}}, false, time.Minute},
		"a little CPU":               {[]look{{7, 0}, {7, 1199 * time.Millisecond}}, false, time.Minute},
		"CPU":                        {[]look{{7, 0}, {7, 1200 * time.Millisecond}}, false, 0},
		"CPU in one minute of three": {[]look{{7, 0}, {7, 0}, {7, 2 * second}, {7, 2 * second}}, false, time.Minute},
		"CPU of an emulated guest":   {[]look{{7, 0}, {7, 2999 * time.Millisecond}}, true, time.Minute},
		"too much of that":           {[]look{{7, 0}, {7, 3 * second}}, true, 0},
		"counters that begin anew":   {[]look{{7, 50 * second}, {0, 0}}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m, at, got := meter{share: share(c.emulated)}, time.Now(), time.Duration(0)
			for _, l := range c.looks {
				got = m.add(Sample{At: at, Process: "vmm", Moved: l.moved, CPU: l.cpu})
				at = at.Add(time.Minute)
			}
			if got != c.want {
				t.Errorf("it is idle for %s, not %s", got, c.want)
			}
		})
	}
}

// TestAnotherVMMIsUse, because it has just started, whatever its counters say.
func TestAnotherVMMIsUse(t *testing.T) {
	m, at := meter{share: share(false)}, time.Now()
	for i, process := range []string{"one", "one", "two"} {
		got := m.add(Sample{At: at.Add(time.Duration(i) * time.Minute), Process: process})
		if want := time.Duration(i%2) * time.Minute; got != want {
			t.Errorf("at look %d it is idle for %s, not %s", i, got, want)
		}
	}
}

// world is what a Watcher sees in these tests.
type world struct {
	mu     sync.Mutex
	vms    []VM
	moved  map[string]uint64
	silent map[string]bool
	parked []string
}

func (w *world) watcher() Watcher {
	sample := func(id string) (Sample, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.silent[id] {
			return Sample{}, errors.New("it does not answer")
		}
		return Sample{At: time.Now(), Process: id, Moved: w.moved[id]}, nil
	}
	return Watcher{
		List: func() []VM {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.vms)
		},
		Look: func(_ context.Context, id string) (Sample, error) { return sample(id) },
		Park: func(id string, still func(Sample) bool) {
			if s, err := sample(id); err == nil && still(s) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.parked = append(w.parked, id)
			}
		},
	}
}

func (w *world) move(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moved[id]++
}

// TestVMsAreParkedAfterTheirTime: the first look begins the time, use begins it anew, and a VM that does not answer is
// not parked.
func TestVMsAreParkedAfterTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{moved: map[string]uint64{}, silent: map[string]bool{"silent": true}, vms: []VM{
			{ID: "soon", After: time.Second}, {ID: "later", After: 3 * time.Minute}, {ID: "used", After: time.Minute},
			{ID: "silent", After: time.Minute}}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.watcher().Run(ctx); close(done) }()
		for minute, want := range []string{"[]", "[soon]", "[soon]", "[later soon soon]"} {
			w.move("used")
			time.Sleep(time.Minute)
			synctest.Wait()
			w.mu.Lock()
			slices.Sort(w.parked)
			if got := fmt.Sprint(w.parked); got != want {
				t.Errorf("after minute %d %s are parked, not %s", minute+1, got, want)
			}
			w.mu.Unlock()
		}
		cancel()
		<-done
	})
}

// TestTheSecondLookDecides: a byte that moves between the look and the action saves the VM.
func TestTheSecondLookDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{moved: map[string]uint64{}, vms: []VM{{ID: "vm", After: time.Minute}}}
		watcher := w.watcher()
		park, asked := watcher.Park, 0
		watcher.Park = func(id string, still func(Sample) bool) {
			asked++
			w.move(id)
			park(id, still)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { watcher.Run(ctx); close(done) }()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		cancel()
		<-done
		if asked != 1 || len(w.parked) > 0 {
			t.Errorf("%d times it was to be parked, and %q were", asked, w.parked)
		}
	})
}
