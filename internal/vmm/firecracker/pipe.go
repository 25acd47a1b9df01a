package firecracker

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	logKept     = 16 << 10  // bytes of the log's end
	metricsKept = 256 << 10 // bytes of the last line of metrics
)

// pipes are where Firecracker writes its log and its metrics. It opens a path once and
// writes for life, so files could not be rotated; of a pipe we keep the end. It drops
// what a full pipe does not take.
type pipes struct {
	dir          string
	files        []*os.File
	log, metrics *kept
	wg           sync.WaitGroup
}

// makePipes makes the pipes in dir and reads them until close.
func makePipes(dir string) (*pipes, error) {
	p := &pipes{dir: dir, log: newKept(logKept), metrics: newKept(metricsKept)}
	for _, pipe := range []struct {
		name string
		to   *kept
	}{{logPipe, p.log}, {metricsPipe, p.metrics}} {
		path := filepath.Join(dir, pipe.name)
		os.Remove(path)
		err := unix.Mkfifo(path, 0o600)
		if err != nil {
			p.close()
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0) // a writer is always there: no end before close
		if err != nil {
			p.close()
			return nil, err
		}
		p.files = append(p.files, f)
		p.wg.Go(func() { io.Copy(pipe.to, f) }) // ends with close
	}
	return p, nil
}

// close ends the reading and removes the pipes.
func (p *pipes) close() {
	for _, f := range p.files {
		f.Close()
	}
	p.wg.Wait()
	for _, name := range []string{logPipe, metricsPipe} {
		os.Remove(filepath.Join(p.dir, name))
	}
}

// lastLine returns the last line of the log of a VMM that has ended.
func (p *pipes) lastLine() string {
	// What it wrote is in the pipe, perhaps unread: a mark behind it tells when it is read.
	if _, err := p.files[0].Write([]byte{0}); err == nil {
		select {
		case <-p.log.marked:
		case <-time.After(time.Second): // no VMM writes any more; this is never met
		}
	}
	return string(p.log.lastLine())
}

// kept is the end of what was written, up to a byte of zero, which marks the end.
type kept struct {
	mu     sync.Mutex
	limit  int
	buf    []byte
	ended  bool
	marked chan struct{} // closed at the mark
}

func newKept(limit int) *kept { return &kept{limit: limit, marked: make(chan struct{})} }

func (k *kept) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	text, _, mark := bytes.Cut(b, []byte{0})
	if k.ended {
		return len(b), nil
	}
	k.buf = append(k.buf, text...)
	if extra := len(k.buf) - k.limit; extra > 0 {
		k.buf = append(k.buf[:0], k.buf[extra:]...)
	}
	if mark {
		k.ended = true
		close(k.marked)
	}
	return len(b), nil
}

func (k *kept) lastLine() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := bytes.TrimSpace(k.buf)
	return bytes.Clone(text[bytes.LastIndexByte(text, '\n')+1:])
}
