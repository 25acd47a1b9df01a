package history

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/usage"
)

// world has VMs that use what a test says. Its host can be suspended.
type world struct {
	*Recorder
	mu        sync.Mutex
	vms       map[string]*machine
	begun     time.Time
	suspended time.Duration
	disturbed []string // VMs that were asked although they did not run
}

type machine struct {
	state  banger.State
	sample Sample
	silent bool
}

func newWorld(ids ...string) *world {
	w := &world{vms: map[string]*machine{}, begun: time.Now()}
	for _, id := range ids {
		w.vms[id] = &machine{state: banger.StateRunning, sample: Sample{banger.Stats{CPUs: 2, Memory: 1 << 20}, "one"}}
	}
	w.Recorder = New(w.list, w.look)
	w.clock = func() time.Duration {
		w.mu.Lock()
		defer w.mu.Unlock()
		return time.Since(w.begun) + w.suspended + 1000*time.Hour
	}
	return w
}

func (w *world) list() (all []banger.VM) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, m := range w.vms {
		all = append(all, banger.VM{ID: id, State: m.state})
	}
	return all
}

func (w *world) look(ctx context.Context, id string) (Sample, error) {
	w.mu.Lock()
	m := *w.vms[id]
	if m.state != banger.StateRunning {
		w.disturbed = append(w.disturbed, id)
	}
	w.mu.Unlock()
	if m.silent {
		<-ctx.Done()
		return Sample{}, ctx.Err()
	}
	return m.sample, nil
}

// use changes VMs.
func (w *world) use(f func(vms map[string]*machine)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.vms)
}

// rounds lets some rounds of samples happen, and calls before ahead of each.
func (w *world) rounds(n int, before func(vms map[string]*machine)) {
	for range n {
		w.use(before)
		time.Sleep(Step)
		synctest.Wait()
	}
}

// lines returns what a reader gets behind a cursor.
func (w *world) lines(t *testing.T, vm string, day bool, since string) (lines []usage.Metrics) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := w.Follow(ctx, vm, day, since, func(m usage.Metrics) error {
		lines = append(lines, m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// of returns the history of a VM.
func (w *world) of(t *testing.T, vm string) (hour, day usage.Use) {
	t.Helper()
	for _, m := range w.lines(t, vm, true, "") {
		if m.VM == vm {
			return *m.Hour, *m.Day
		}
	}
	t.Fatalf("there is no history of %s", vm)
	return
}

func still(map[string]*machine) {}

// in runs a story of a world whose recorder has started. The first round comes after half a step. At the end, no VM may
// have been asked that did not run.
func in(t *testing.T, ids []string, story func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(ids...)
		w.suspended = Step / 2
		stop := w.Start()
		defer stop()
		story(t, w)
		if w.disturbed != nil {
			t.Errorf("VMs were asked that did not run: %v", w.disturbed)
		}
	})
}

// says compares a series with its text.
func says(t *testing.T, what string, got usage.Series, want string) {
	t.Helper()
	if text, err := got.MarshalJSON(); err != nil || string(text) != want {
		t.Errorf("%s is %s (%v), not %s", what, text, err, want)
	}
}

func TestRatesAreThoseBetweenTwoRounds(t *testing.T) {
	in(t, []string{"vm"}, func(t *testing.T, w *world) {
		w.rounds(3, func(vms map[string]*machine) {
			s := &vms["vm"].sample
			s.CPUTime += 5 * time.Second
			s.Memory += 1 << 20
			s.NetIn, s.NetOut, s.DiskRead, s.DiskWritten = s.NetIn+10, s.NetOut+20_000, s.DiskRead+300, s.DiskWritten+5
		})
		hour, day := w.of(t, "vm")
		says(t, "the share of two CPUs", hour.CPU, "[null,0.25,0.25]")
		says(t, "the memory", hour.Memory, "[2097152,3145728,4194304]")
		says(t, "what comes in", hour.NetIn, "[null,1,1]")
		says(t, "what goes out", hour.NetOut, "[null,2000,2000]")
		says(t, "what is read", hour.DiskRead, "[null,30,30]")
		says(t, "what is written", hour.DiskWritten, "[null,0.5,0.5]")
		says(t, "the day", day.CPU, "[]")
	})
}

// TestWhatIsAGap lets something happen between two of four rounds of a VM that uses half of its CPUs.
func TestWhatIsAGap(t *testing.T) {
	always, once := "[1048576,1048576,1048576,1048576]", "[1048576,1048576,null,1048576]"
	for name, c := range map[string]struct {
		happens     func(w *world, m *machine)
		cpu, memory string
	}{
		"nothing":              {func(*world, *machine) {}, "[null,0.5,0.5,0.5]", always},
		"another VMM":          {func(_ *world, m *machine) { m.sample.Process = "two" }, "[null,0.5,null,0.5]", always},
		"a counter goes back":  {func(_ *world, m *machine) { m.sample.CPUTime = 0 }, "[null,0.5,null,0.5]", always},
		"a pause of one round": {func(_ *world, m *machine) { m.state = banger.StatePaused }, "[null,0.5,null,null]", once},
		"silence of one round": {func(_ *world, m *machine) { m.silent = true }, "[null,0.5,null,null]", once},
		"the host is away": {func(w *world, _ *machine) { w.suspended += 5 * Step },
			"[null,0.5,null,null,null,null,null,null,0.5]", "[1048576,1048576,null,null,null,null,null,1048576,1048576]"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, []string{"vm"}, func(t *testing.T, w *world) {
				busy := func(vms map[string]*machine) {
					m := vms["vm"]
					m.state, m.silent = banger.StateRunning, false
					m.sample.CPUTime += Step
				}
				w.rounds(2, busy)
				w.rounds(1, func(vms map[string]*machine) {
					busy(vms)
					c.happens(w, vms["vm"])
				})
				w.rounds(1, busy)
				hour, _ := w.of(t, "vm")
				says(t, "the CPU", hour.CPU, c.cpu)
				says(t, "the memory", hour.Memory, c.memory)
			})
		})
	}
}

// TestAnHourBecomesPointsOfADay runs for two days. CPU is used in the first half of each block of five minutes.
func TestAnHourBecomesPointsOfADay(t *testing.T) {
	in(t, []string{"vm"}, func(t *testing.T, w *world) {
		n := 0
		w.rounds(2*dayBlocks*blockStep, func(vms map[string]*machine) {
			if n%blockStep < blockStep/2 {
				vms["vm"].sample.CPUTime += 2 * Step
			}
			n++
		})
		hour, day := w.of(t, "vm")
		if len(hour.CPU) != hourSteps || len(day.CPU) != dayBlocks {
			t.Fatalf("there are %d values of the hour and %d of the day", len(hour.CPU), len(day.CPU))
		}
		for i, v := range day.CPU {
			if math.Abs(float64(v)-0.5) > 0.04 {
				t.Errorf("value %d of the day is %v", i, v)
			}
		}
		w.suspended += 36 * time.Hour
		w.rounds(1, still)
		hour, day = w.of(t, "vm")
		known := func(v float32) bool { return v == v }
		if slices.ContainsFunc(hour.CPU, known) || slices.ContainsFunc(day.CPU, known) {
			t.Error("after a day and a half away, values of the time before are there")
		}
	})
}

// TestAReaderWhoAddsTheLinesHasTheState compares what a reader makes of the stream with the state, across blocks, new
// VMs, removed ones and a host that was away.
func TestAReaderWhoAddsTheLinesHasTheState(t *testing.T) {
	in(t, []string{"a", "b"}, func(t *testing.T, w *world) {
		w.rounds(3, still)
		r := reader{}
		r.read(w.lines(t, "", true, ""))
		for i := range 100 {
			w.rounds(1, func(vms map[string]*machine) {
				vms["a"].sample.CPUTime += time.Duration(i) * 100 * time.Millisecond
				switch i {
				case 20:
					vms["c"] = &machine{state: banger.StateRunning, sample: Sample{Process: "c"}}
				case 40:
					delete(vms, "b")
				case 50:
					w.suspended += 70 * Step
				case 60:
					vms["c"].state = banger.StateSuspended
				}
			})
			if i%7 == 0 {
				r.read(w.lines(t, "", true, r.cursor))
			}
		}
		r.read(w.lines(t, "", true, r.cursor))
		fresh := reader{}
		fresh.read(w.lines(t, "", true, ""))
		if got, want := fmt.Sprint(r.vms), fmt.Sprint(fresh.vms); got != want {
			t.Errorf("a reader of the lines has\n%.2000s\nand the state is\n%.2000s", got, want)
		}
		if len(fresh.vms) != 2 || fresh.vms["b"] != nil {
			t.Errorf("the histories of %d VMs are kept", len(fresh.vms))
		}
	})
}

// reader puts lines together, as a client does.
type reader struct {
	cursor string
	step   int64
	vms    map[string][]usage.Series // CPU of the last hour and day
}

func (r *reader) read(lines []usage.Metrics) {
	for _, m := range lines {
		switch {
		case m.State:
			r.vms, r.step = map[string][]usage.Series{}, m.Step
		case m.VM != "":
			r.vms[m.VM] = []usage.Series{m.Hour.CPU, m.Day.CPU}
		case m.Step > r.step:
			r.round(m)
		}
		r.cursor = m.Cursor
	}
}

func (r *reader) round(m usage.Metrics) {
	for _, id := range m.VMs {
		if r.vms[id] == nil {
			r.vms[id] = make([]usage.Series, 2)
		}
	}
	for _, id := range m.Removed {
		delete(r.vms, id)
	}
	nan := float32(math.NaN())
	for id, vm := range r.vms {
		push := func(i, most int, steps int64, at int, v usage.Series) {
			if len(vm[i]) == 0 && v == nil {
				return
			}
			for k := range steps {
				value := nan
				if v != nil && int(k) == at {
					value = v[0]
				}
				vm[i] = append(vm[i], value)
			}
			vm[i] = vm[i][max(0, len(vm[i])-most):]
		}
		_, now := pick(m.VMs, m.Now, id)
		steps := m.Step - r.step
		var cpu, block usage.Series
		if now != nil {
			cpu = now.CPU
		}
		if len(vm[0]) == 0 {
			steps = 1
		}
		push(0, hourSteps, steps, int(steps)-1, cpu)
		if _, u := pick(m.DayVMs, m.DayNow, id); u != nil {
			block = u.CPU
		}
		push(1, dayBlocks, m.Step/blockStep-r.step/blockStep, 0, block)
	}
	r.step = m.Step
}

func TestAReaderOfOneVMSeesNoOther(t *testing.T) {
	in(t, []string{"a", "b"}, func(t *testing.T, w *world) {
		w.rounds(2, still)
		state := w.lines(t, "b", false, "")
		if len(state) != 3 || !state[0].State || state[1].VM != "b" || state[1].Day != nil || state[2].Cursor == "" {
			t.Errorf("the state of one VM is %+v", state)
		}
		w.rounds(1, still)
		got := w.lines(t, "b", false, state[2].Cursor)
		if len(got) != 1 || !slices.Equal(got[0].VMs, []string{"b"}) || len(got[0].Now.CPU) != 1 {
			t.Errorf("a round of one VM is %+v", got)
		}
	})
}

// TestASlowReaderGetsTheWholeState, because not more than a bounded number of rounds is kept.
func TestASlowReaderGetsTheWholeState(t *testing.T) {
	in(t, []string{"a"}, func(t *testing.T, w *world) {
		w.rounds(1, still)
		state := w.lines(t, "", false, "")
		cursor := state[len(state)-1].Cursor
		w.rounds(kept, still)
		if got := w.lines(t, "", false, cursor); len(got) != kept || got[0].State {
			t.Errorf("a reader that missed %d rounds gets %d lines", kept, len(got))
		}
		w.rounds(1, still)
		if got := w.lines(t, "", false, cursor); !got[0].State {
			t.Errorf("a reader that missed too much gets %d lines, without a state", len(got))
		}
	})
}

// TestSilentVMsTakeNoTimeOfOthers, even if there are so many that a round is over before all were asked.
func TestSilentVMsTakeNoTimeOfOthers(t *testing.T) {
	ids := []string{}
	for i := range 10 * atOnce {
		ids = append(ids, fmt.Sprint(i))
	}
	in(t, append(ids, "good"), func(t *testing.T, w *world) {
		w.rounds(1, func(vms map[string]*machine) {
			for _, id := range ids {
				vms[id].silent = true
			}
		})
		w.rounds(7, still) // in the first ones it becomes known which VMs are silent
		hour, _ := w.of(t, "good")
		says(t, "the memory of a VM that answers", hour.Memory[max(0, len(hour.Memory)-4):],
			"[1048576,1048576,1048576,1048576]")
	})
}

// TestAVMWithoutValuesForADayIsForgotten: it may be at rest for years.
func TestAVMWithoutValuesForADayIsForgotten(t *testing.T) {
	in(t, []string{"vm"}, func(t *testing.T, w *world) {
		w.rounds(1, still)
		w.rounds(longAgo+1, func(vms map[string]*machine) { vms["vm"].state = banger.StateStopped })
		if state := w.lines(t, "", false, ""); len(state) != 2 {
			t.Errorf("the state has %d lines", len(state))
		}
	})
}

// TestAVMTakesAtMost40KiB of memory, with a full history and a full ring of rounds.
func TestAVMTakesAtMost40KiB(t *testing.T) {
	const vms = 500
	ids := []string{}
	for i := range vms {
		ids = append(ids, fmt.Sprintf("%032d", i))
	}
	w := newWorld(ids...)
	all, samples := w.list(), map[string]seen{}
	for _, id := range ids {
		samples[id] = seen{Sample: w.vms[id].sample}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for step := range int64(2 * kept) {
		w.keep(1000+step, all, samples)
	}
	per := (heap() - before) / vms
	t.Logf("%d bytes for each VM", per)
	if per > 40<<10 {
		t.Errorf("a VM takes %d bytes", per)
	}
	runtime.KeepAlive(w)
}

func TestReadersAndRoundsAtTheSameTime(t *testing.T) {
	w := newWorld("a", "b")
	all, samples := w.list(), map[string]seen{"a": {}, "b": {}}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			last := int64(0)
			w.Follow(ctx, "", true, "", func(m usage.Metrics) error {
				if m.Cursor != "" && m.Step < last {
					t.Errorf("step %d comes after step %d", m.Step, last)
				}
				last = max(last, m.Step)
				return nil
			})
		})
	}
	for step := range int64(1000) {
		w.keep(step+1, all, samples)
	}
	cancel()
	readers.Wait()
}
