package image

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"banger"
)

// meter counts the stored bytes of one layer that were read.
type meter struct {
	reader io.Reader
	layer  layer
	name   string // "layer 2 of 6"
	begun  time.Time
	done   atomic.Int64
	next   atomic.Int64 // time of the next event, in ns of the clock
	total  *total
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.reader.Read(p)
	done := m.done.Add(int64(n))
	if m.layer.digest != "" && due(&m.next) {
		m.total.emit(m.event(done))
	}
	m.total.add(int64(n))
	return n, err
}

func (m *meter) event(done int64) banger.Event {
	return banger.Event{Stage: "pull", Text: m.name, Layer: m.layer.digest, Bytes: done, Total: m.layer.size,
		Seconds: time.Since(m.begun).Seconds()}
}

// finish reports how long the layer took, including its decoding.
func (m *meter) finish() {
	e := m.event(m.done.Load())
	e.Done = true
	e.Text = fmt.Sprintf("%s: %s in %.1f s", m.name, banger.FormatSize(e.Bytes), e.Seconds)
	if e.Seconds >= 0.1 {
		e.Text += fmt.Sprintf(", %s/s", banger.FormatSize(int64(float64(e.Bytes)/e.Seconds)))
	}
	m.total.emit(e)
}

// total reports a few times a second how much of all layers is done.
type total struct {
	emit   banger.Emit
	layers int
	text   string
	size   int64
	done   atomic.Int64
	next   atomic.Int64 // time of the next event, in ns of the clock
}

func newTotal(layers []layer, emit banger.Emit) *total {
	t := &total{emit: emit, layers: len(layers), text: fmt.Sprintf("%d layers", len(layers))}
	if len(layers) == 1 {
		t.text = "1 layer"
	}
	for _, l := range layers {
		t.size += l.size
	}
	return t
}

// meter returns the meter of layer i, counted from 0.
func (t *total) meter(i int, l layer) *meter {
	m := &meter{total: t, layer: l, name: fmt.Sprintf("layer %d of %d", i+1, t.layers), begun: time.Now()}
	due(&m.next) // the first event comes after an interval
	return m
}

const meterInterval = 200 * time.Millisecond

// due reports whether an event is due, which is once in each interval.
func due(next *atomic.Int64) bool {
	now, at := time.Now().UnixNano(), next.Load()
	return now >= at && next.CompareAndSwap(at, now+int64(meterInterval))
}

func (t *total) add(n int64) {
	done := t.done.Add(n)
	if due(&t.next) {
		t.emit(banger.Event{Stage: "pull", Text: t.text, Bytes: done, Total: t.size})
	}
}
