// Package history keeps in memory what running VMs have used of their host: the last hour in steps of ten seconds, and
// the last day in steps of five minutes.
//
// It must not know how a VM is asked, and it asks no guest.
package history

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/feed"
	"banger/internal/usage"
)

// Step is the time between two rounds of samples.
const Step = 10 * time.Second

const (
	kept     = 60              // rounds, for readers that come back
	atOnce   = 16              // VMs that are looked at
	lookTime = 2 * time.Second // for one look
	allLooks = 8 * time.Second // for those of a round
	longAgo  = dayBlocks * blockStep
)

// Sample is what one look at a running VM shows.
type Sample struct {
	banger.Stats
	Process string // the VMM; another one has counters of its own
}

// Recorder keeps the history of all VMs.
type Recorder struct {
	list  func() []banger.VM
	look  func(ctx context.Context, id string) (Sample, error)
	clock func() time.Duration

	rounds *feed.Feed[round]

	mu      sync.Mutex
	records map[string]*record
	step    int64
	at      time.Time
}

// round is what one round of samples has shown, or the whole state after it.
type round struct {
	usage.Metrics
	records map[string]*record // of the state; nobody changes them
}

// New returns a Recorder of the VMs that list returns, whatever their state. look takes a sample of one that runs. It
// asks neither its guest nor anything else that would count as use of the VM.
func New(list func() []banger.VM, look func(ctx context.Context, id string) (Sample, error)) *Recorder {
	return &Recorder{list: list, look: look, clock: sinceBoot, rounds: feed.New[round](kept),
		records: map[string]*record{}}
}

// sinceBoot returns the time since the host's boot. It goes on while the host is suspended, and nobody can set it.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// Start begins to take samples, until stop is called, which waits for the end. A step at which it could take none,
// because the host was suspended or a round took too long, is a gap.
func (r *Recorder) Start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.step = int64(r.clock() / Step)
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (r *Recorder) run(ctx context.Context) {
	silent := map[string]bool{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := r.clock()
		step := int64(now / Step)
		timer.Reset(time.Duration(step+1)*Step - now)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if step = int64(r.clock() / Step); step > r.step { // only this goroutine changes it
			silent = r.round(ctx, step, silent)
		}
	}
}

// seen is a sample and when it was taken.
type seen struct {
	Sample
	at time.Duration
}

// round takes a sample of each running VM. The VMs that did not answer the last time come last, so that they do not
// take the time of others. It returns those that have not answered since they were asked last.
func (r *Recorder) round(ctx context.Context, step int64, silent map[string]bool) (now map[string]bool) {
	all := r.list()
	running := make([]string, 0, len(all))
	var last []string
	for _, vm := range all {
		switch {
		case vm.State != banger.StateRunning:
		case silent[vm.ID]:
			last = append(last, vm.ID)
		default:
			running = append(running, vm.ID)
		}
	}
	samples, now := r.lookAt(ctx, append(running, last...))
	for _, id := range last {
		if _, ok := samples[id]; !ok {
			now[id] = true // there may have been no time to ask it
		}
	}
	if ctx.Err() == nil {
		r.keep(step, all, samples)
	}
	return now
}

// lookAt takes samples of VMs, a few at a time. It also returns which of the VMs that it asked did not answer.
func (r *Recorder) lookAt(ctx context.Context, ids []string) (samples map[string]seen, silent map[string]bool) {
	ctx, cancel := context.WithTimeout(ctx, allLooks)
	defer cancel()
	samples, silent = make(map[string]seen, len(ids)), map[string]bool{}
	var mu sync.Mutex
	var looks sync.WaitGroup
	next := make(chan string)
	for range min(atOnce, len(ids)) {
		looks.Go(func() {
			for id := range next {
				within, cancel := context.WithTimeout(ctx, lookTime)
				s, err := r.look(within, id)
				cancel()
				at := r.clock()
				mu.Lock()
				if err == nil {
					samples[id] = seen{s, at}
				} else {
					silent[id] = true
				}
				mu.Unlock()
			}
		})
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			break // the others have a gap
		}
		next <- id
	}
	close(next)
	looks.Wait()
	return samples, silent
}

// keep adds a round to the histories, and tells it to all readers. A VM that is gone, or that had no value for a day,
// is forgotten.
func (r *Recorder) keep(step int64, all []banger.VM, samples map[string]seen) {
	m := usage.Metrics{Step: step, At: time.Now().UTC(), Now: &usage.Use{}}
	blocks := &usage.Use{}
	there := make(map[string]bool, len(all))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, vm := range all {
		id := vm.ID
		there[id] = true
		s, ok := samples[id]
		rec := r.records[id]
		if rec == nil && !ok {
			continue
		}
		if rec == nil {
			rec = &record{begun: step}
			r.records[id] = rec
		}
		p := gap
		if ok {
			p = rec.take(s.Sample, s.at)
			m.VMs = append(m.VMs, id)
			add(m.Now, p)
		}
		if block, known := rec.put(max(r.step, rec.begun-1), step, p); known {
			m.DayVMs = append(m.DayVMs, id)
			add(blocks, block)
		}
	}
	for id, rec := range r.records {
		if !there[id] || step-rec.last > longAgo {
			delete(r.records, id)
			m.Removed = append(m.Removed, id)
		}
	}
	slices.Sort(m.Removed)
	if len(m.VMs) == 0 {
		m.Now = nil
	}
	if len(m.DayVMs) > 0 {
		m.DayNow = blocks
	}
	r.step, r.at = step, m.At
	r.rounds.Publish(round{Metrics: m})
}
