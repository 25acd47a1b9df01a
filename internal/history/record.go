package history

import (
	"math"
	"time"

	"banger/internal/usage"
)

const (
	hourSteps = 360 // values of the last hour
	blockStep = 30  // steps that become one value of the last day
	dayBlocks = 288 // values of the last day
)

// point is what a VM uses at one time, in the order of the fields of usage.Use. NaN means that it is not known.
type point [6]float32

var gap = func() (p point) {
	for i := range p {
		p[i] = float32(math.NaN())
	}
	return p
}()

func (p point) known() bool {
	for _, v := range p {
		if v == v {
			return true
		}
	}
	return false
}

// columns are the fields of a usage.Use, in their order.
func columns(u *usage.Use) [6]*usage.Series {
	return [6]*usage.Series{&u.CPU, &u.Memory, &u.NetIn, &u.NetOut, &u.DiskRead, &u.DiskWritten}
}

// newUse returns a Use with room for some values of each kind.
func newUse(values int64) *usage.Use {
	u := &usage.Use{}
	for _, column := range columns(u) {
		*column = make(usage.Series, 0, values)
	}
	return u
}

func add(u *usage.Use, p point) {
	for i, column := range columns(u) {
		*column = append(*column, p[i])
	}
}

// record is the history of one VM. The values of a time that is too long ago are overwritten.
type record struct {
	begun int64 // the first step
	last  int64 // the latest step with a value
	hour  [hourSteps]point
	day   [dayBlocks]point

	sum   [6]float64 // of the block of steps that is not over
	count [6]int

	before Sample
	at     time.Duration
}

// take returns what a VM uses, of a sample that was taken at a time of the clock. Rates need the sample of the step
// before, of the same VMM. A counter that has gone back gives no rate.
func (r *record) take(s Sample, at time.Duration) point {
	before, took := r.before, at-r.at
	r.before, r.at = s, at
	now := gap
	now[1] = float32(s.Memory)
	if before.Process != s.Process || took <= 0 || took >= 2*Step {
		return now
	}
	seconds := took.Seconds()
	if s.CPUTime >= before.CPUTime && s.CPUs > 0 {
		now[0] = float32((s.CPUTime - before.CPUTime).Seconds() / seconds / float64(s.CPUs))
	}
	for i, c := range [4][2]uint64{{before.NetIn, s.NetIn}, {before.NetOut, s.NetOut}, {before.DiskRead, s.DiskRead},
		{before.DiskWritten, s.DiskWritten}} {
		if c[1] >= c[0] {
			now[2+i] = float32(float64(c[1]-c[0]) / seconds)
		}
	}
	return now
}

// put keeps the value of a step, and a gap for each step since the last call, which was for the step before. If known
// is true, block is the mean of the block of steps that is over since then.
func (r *record) put(before, step int64, p point) (block point, known bool) {
	for n := max(before+1, step-hourSteps+1); n < step; n++ {
		r.hour[n%hourSteps] = gap
	}
	r.hour[step%hourSteps] = p
	if from, to := before/blockStep, step/blockStep; from < to {
		block = r.mean()
		known = block.known()
		r.day[from%dayBlocks] = block
		for n := max(from+1, to-dayBlocks); n < to; n++ {
			r.day[n%dayBlocks] = gap
		}
	}
	if p.known() {
		r.last = step
	}
	for i, v := range p {
		if v == v {
			r.sum[i] += float64(v)
			r.count[i]++
		}
	}
	return block, known
}

// mean returns the mean of the values since the last call.
func (r *record) mean() point {
	p := gap
	for i, n := range r.count {
		if n > 0 {
			p[i] = float32(r.sum[i] / float64(n))
		}
	}
	r.sum, r.count = [6]float64{}, [6]int{}
	return p
}

// lastHour returns the values up to a step.
func (r *record) lastHour(step int64) *usage.Use {
	from := max(r.begun, step-hourSteps+1)
	u := newUse(step - from + 1)
	for n := from; n <= step; n++ {
		add(u, r.hour[n%hourSteps])
	}
	return u
}

// lastDay returns the means of the blocks before that of a step.
func (r *record) lastDay(step int64) *usage.Use {
	block := step / blockStep
	from := max(r.begun/blockStep, block-dayBlocks)
	u := newUse(block - from)
	for n := from; n < block; n++ {
		add(u, r.day[n%dayBlocks])
	}
	return u
}
