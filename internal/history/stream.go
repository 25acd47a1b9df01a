package history

import (
	"context"
	"maps"
	"slices"

	"banger/internal/usage"
)

// Follow calls emit with what VMs use behind the cursor since, until ctx ends: with one line for each round. If since
// is empty, or rounds behind it are no longer kept, the lines of the whole state come first. They have the last day
// only if day is set. With the id of a VM, the lines have nothing of others. Follow returns the error of emit. If ctx
// has ended before, Follow still emits what is known up to now.
func (r *Recorder) Follow(ctx context.Context, vm string, day bool, since string,
	emit func(usage.Metrics) error) error {
	var known int64 // the step of the state, which may come behind rounds that it has already
	return r.rounds.Follow(ctx, nil, since, r.state, func(x round, cursor string) error {
		if x.State {
			known = x.Step
			if err := tellState(x, vm, day, emit); err != nil {
				return err
			}
			return emit(usage.Metrics{Step: x.Step, At: x.At, Cursor: cursor})
		}
		if x.Step <= known {
			return nil
		}
		m := x.Metrics
		if vm != "" {
			m = only(m, vm)
		}
		if !day {
			m.DayVMs, m.DayNow = nil, nil
		}
		m.Cursor = cursor
		return emit(m)
	})
}

// state returns the whole state.
func (r *Recorder) state() round {
	r.mu.Lock()
	defer r.mu.Unlock()
	records := make(map[string]*record, len(r.records))
	for id, rec := range r.records {
		own := *rec
		records[id] = &own
	}
	return round{Metrics: usage.Metrics{State: true, Step: r.step, At: r.at}, records: records}
}

// tellState emits the first line of the state x, and those of the VMs.
func tellState(x round, vm string, day bool, emit func(usage.Metrics) error) error {
	if err := emit(x.Metrics); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(x.records)) {
		if vm != "" && vm != id {
			continue
		}
		m := usage.Metrics{VM: id, Hour: x.records[id].lastHour(x.Step)}
		if day {
			m.Day = x.records[id].lastDay(x.Step)
		}
		if err := emit(m); err != nil {
			return err
		}
	}
	return nil
}

// only returns what a round says of one VM.
func only(m usage.Metrics, vm string) usage.Metrics {
	got := usage.Metrics{Step: m.Step, At: m.At}
	got.VMs, got.Now = pick(m.VMs, m.Now, vm)
	got.DayVMs, got.DayNow = pick(m.DayVMs, m.DayNow, vm)
	if slices.Contains(m.Removed, vm) {
		got.Removed = []string{vm}
	}
	return got
}

// pick returns the column of one VM.
func pick(vms []string, all *usage.Use, vm string) ([]string, *usage.Use) {
	i := slices.Index(vms, vm)
	if i < 0 {
		return nil, nil
	}
	u := &usage.Use{}
	from, to := columns(all), columns(u)
	for k := range from {
		*to[k] = (*from[k])[i : i+1]
	}
	return vms[i : i+1], u
}
