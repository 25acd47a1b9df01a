package layer

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"banger"
)

// AtOnce is how many layers are fetched and decoded at the same time. It also bounds memory, about 4 MiB for each
// layer.
const AtOnce = 8

// Each calls use for each layer, at most AtOnce at a time, and emits the progress of each layer and of all of them. A
// layer never starts before an older one, which it may have to wait for. The first error ends the context of the
// others; it says which layer it is about.
func Each(ctx context.Context, layers []Descriptor, emit banger.Emit,
	use func(ctx context.Context, i int, m *Meter) error) error {
	all := newTotal(layers, emit)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(AtOnce)
	for i, l := range layers {
		group.Go(func() error {
			m := all.meter(i, l)
			err := use(ctx, i, m)
			if err == nil {
				m.finish()
			}
			return Numbered(i, err)
		})
	}
	return group.Wait()
}

// Numbered adds to err, which may be nil, the number of its layer. i counts from 0, and the text from 1.
func Numbered(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("layer %d: %w", i+1, err)
}

// Watch returns a reader of r that emits how many bytes were read, with a text for a person.
func Watch(r io.Reader, text string, emit banger.Emit) io.Reader {
	return (&Meter{total: &total{emit: emit, text: text}}).Reader(r)
}

// Meter counts the stored bytes of one layer that were read.
type Meter struct {
	layer Descriptor
	name  string // "layer 2 of 6"
	begun time.Time
	done  atomic.Int64
	next  atomic.Int64 // time of the next event, in ns of the clock
	total *total
}

// Reader returns a reader of r whose bytes the meter counts.
func (m *Meter) Reader(r io.Reader) io.Reader { return &counted{r, m} }

// Done returns how many bytes were read.
func (m *Meter) Done() int64 { return m.done.Load() }

type counted struct {
	r io.Reader
	m *Meter
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.add(int64(n))
	return n, err
}

func (m *Meter) add(n int64) {
	done := m.done.Add(n)
	if m.layer.Digest != "" && due(&m.next) {
		m.total.emit(m.event(done))
	}
	m.total.add(n)
}

func (m *Meter) event(done int64) banger.Event {
	return banger.Event{Stage: "pull", Text: m.name, Layer: m.layer.Digest, Bytes: done, Total: m.layer.Size,
		Seconds: time.Since(m.begun).Seconds()}
}

// finish reports how long the layer took, including its decoding.
func (m *Meter) finish() {
	e := m.event(m.done.Load())
	e.Done = true
	e.Text = fmt.Sprintf("%s: %s in %.1f s", m.name, banger.FormatSize(e.Bytes), e.Seconds)
	if e.Seconds >= 0.1 {
		e.Text += fmt.Sprintf(", %s/s", banger.FormatSize(int64(float64(e.Bytes)/e.Seconds)))
	}
	m.total.emit(e)
}

// total emits a few times a second how much of all layers was read.
type total struct {
	emit   banger.Emit
	layers int
	text   string
	size   int64
	done   atomic.Int64
	next   atomic.Int64 // time of the next event, in ns of the clock
}

func newTotal(layers []Descriptor, emit banger.Emit) *total {
	t := &total{emit: emit, layers: len(layers), text: fmt.Sprintf("%d layers", len(layers))}
	if len(layers) == 1 {
		t.text = "1 layer"
	}
	for _, l := range layers {
		t.size += l.Size
	}
	return t
}

// meter returns the meter of layer i, counted from 0.
func (t *total) meter(i int, l Descriptor) *Meter {
	m := &Meter{total: t, layer: l, name: fmt.Sprintf("layer %d of %d", i+1, t.layers), begun: time.Now()}
	due(&m.next) // the first event comes after an interval
	return m
}

const interval = 200 * time.Millisecond

// due reports whether an event is due, which happens once in each interval.
func due(next *atomic.Int64) bool {
	now, at := time.Now().UnixNano(), next.Load()
	return now >= at && next.CompareAndSwap(at, now+int64(interval))
}

func (t *total) add(n int64) {
	done := t.done.Add(n)
	if due(&t.next) {
		t.emit(banger.Event{Stage: "pull", Text: t.text, Bytes: done, Total: t.size})
	}
}
