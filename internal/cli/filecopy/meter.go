package filecopy

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"banger"
	"banger/internal/archive"
	"banger/internal/cli/render"
	"banger/internal/frame"
)

// meter shows how much was copied: on a terminal continuously, elsewhere once at the end.
type meter struct {
	mu       sync.Mutex
	progress *render.Progress
	event    banger.Event
	shown    time.Time
	over     bool // a read of stdin may outlive the copy
}

func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event.Bytes += int64(n)
	if n == 0 {
		return
	}
	if now := time.Now(); m.shown.IsZero() || m.progress.Live() && now.Sub(m.shown) > 100*time.Millisecond {
		if m.over {
			return
		}
		m.shown = now
		m.progress.Emit(m.event)
	}
}

func (m *meter) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.event.Done = true; err == nil {
		m.progress.Emit(m.event)
	}
	m.progress.Close()
}

// meteredReader reads what a VM sends. A read fails if the VM sends nothing for longer than patience.
type meteredReader struct {
	*archive.Frames
	m        *meter
	conn     net.Conn
	patience time.Duration
	theirs   *banger.CopyReport // set at the end
}

// ReadChunk returns io.EOF only after it has also read the VM's report.
func (r meteredReader) ReadChunk(max int) ([]byte, error) {
	r.conn.SetReadDeadline(time.Now().Add(r.patience))
	p, err := r.Frames.ReadChunk(max)
	r.m.add(len(p))
	if err == io.EOF {
		if err := json.Unmarshal(r.Last(), r.theirs); err != nil {
			return nil, banger.Errorf(banger.CodeGuest, "the agent sent a broken report: %w", err)
		}
	}
	return p, silent(err, r.patience)
}

// silent turns a deadline error of a connection into an error that says that the VM is silent. It returns other
// errors unchanged.
func silent(err error, patience time.Duration) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return banger.Errorf(banger.CodeTimeout,
		"the VM's agent is silent: for %s nothing came of the copy or was taken of it", patience).
		WithHint("see whether the VM works: banger logs --console VM; a stop and a start mend one that does not")
}

// WriteTo implements io.WriterTo. It copies without an intermediate buffer.
func (r meteredReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		p, err := r.ReadChunk(frame.MaxData)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(p)
		if total += int64(n); err != nil {
			return total, banger.Errorf(banger.CodeInternal, "cannot write the tar: %w", err)
		}
	}
}

// meteredWriter sends to a VM. A write fails if the VM takes nothing for longer than patience. failed says whether
// the connection has failed.
type meteredWriter struct {
	w        net.Conn
	m        *meter
	patience time.Duration
	failed   bool
}

func (w *meteredWriter) Write(p []byte) (int, error) {
	w.w.SetWriteDeadline(time.Now().Add(w.patience))
	n, err := w.w.Write(p)
	w.m.add(n)
	w.failed = w.failed || err != nil
	return n, silent(err, w.patience)
}
