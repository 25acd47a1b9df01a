package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"banger/internal/vmm"
)

// maxMetrics is the largest size of one line of metrics, in bytes. A line of a VM like ours has
// about 10,000.
const maxMetrics = 256 << 10

// metrics adds up the figures that Firecracker writes about its devices: a line of JSON each minute
// and at each request, with the differences to the line before (docs/metrics.md; logger/metrics.rs,
// SharedIncMetric). Firecracker opens the file once, as it does its log, so the file is a pipe.
type metrics struct {
	path string
	file *os.File
	wg   sync.WaitGroup

	mu    sync.Mutex
	total vmm.Stats
	next  chan struct{} // closed and replaced at each line
}

// openMetrics creates the pipe in dir and reads it until close.
func openMetrics(dir string) (*metrics, error) {
	m := &metrics{path: filepath.Join(dir, metricsPipe), next: make(chan struct{})}
	var err error
	if m.file, err = openPipe(m.path); err != nil {
		return nil, err
	}
	m.wg.Go(m.read) // ends at close
	return m, nil
}

// close stops the reader and removes the pipe.
func (m *metrics) close() {
	m.file.Close()
	m.wg.Wait()
	os.Remove(m.path)
}

func (m *metrics) read() {
	r := bufio.NewReaderSize(m.file, maxMetrics)
	for {
		line, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // too long to be a line of Firecracker's
			line = nil
			_, err = r.ReadSlice('\n')
		}
		if err != nil {
			return
		}
		m.add(line)
	}
}

// add adds the figures of a line. It ignores a broken line, which comes from a full pipe.
func (m *metrics) add(line []byte) {
	var said struct {
		Block struct { // sums of all drives
			Read    uint64 `json:"read_bytes"`
			Written uint64 `json:"write_bytes"`
		} `json:"block"`
	}
	err := json.Unmarshal(line, &said)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.total.DiskRead += said.Block.Read
		m.total.DiskWritten += said.Block.Written
	}
	close(m.next)
	m.next = make(chan struct{})
}

func (m *metrics) sums() (vmm.Stats, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total, m.next
}

// Stats asks Firecracker to write its metrics and returns their sums. A process that is stopped by
// a signal writes nothing: the sums are then those of its last line, at most a minute old.
func (p *process) Stats(ctx context.Context) (vmm.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := p.pausing.take(ctx); err != nil {
		return vmm.Stats{}, err
	}
	defer p.pausing.leave()
	total, written := p.metrics.sums()
	if p.pausing.stopped && p.Handle().Alive() {
		return total, nil
	}
	if err := p.api.call(ctx, http.MethodPut, "/actions", InstanceActionInfo{ActionType: actionFlushMetrics},
		nil); err != nil {
		return vmm.Stats{}, p.endOr(err)
	}
	select {
	case <-written:
	case <-ctx.Done():
		return vmm.Stats{}, fmt.Errorf("waiting for Firecracker's metrics: %w", ctx.Err())
	}
	total, _ = p.metrics.sums()
	return total, nil
}

func metricsRequest(c vmm.Config) request {
	return put("/metrics", Metrics{MetricsPath: filepath.Join(c.Dir, metricsPipe)})
}
