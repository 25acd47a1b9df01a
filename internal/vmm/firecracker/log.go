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

// logKept is how many bytes of the log's end are kept.
const logKept = 16 << 10

// logEnd receives Firecracker's log. Firecracker opens the path once and writes to it until it
// ends, so a file could not be rotated. The path is a pipe, and logEnd keeps the end of what comes.
// Firecracker drops what does not fit into a full pipe.
type logEnd struct {
	path string
	file *os.File
	wg   sync.WaitGroup
	kept kept
}

// openLog creates the pipe in dir and reads it until close.
func openLog(dir string) (*logEnd, error) {
	l := &logEnd{path: filepath.Join(dir, logPipe), kept: kept{marked: make(chan struct{})}}
	var err error
	if l.file, err = openPipe(l.path); err != nil {
		return nil, err
	}
	l.wg.Go(func() { io.Copy(&l.kept, l.file) }) // ends at close
	return l, nil
}

// openPipe makes a named pipe and opens it for reading.
func openPipe(path string) (*os.File, error) {
	os.Remove(path)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	// With a writer that stays open, there is no end of file before close.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		os.Remove(path)
	}
	return f, err
}

// close stops the reader and removes the pipe.
func (l *logEnd) close() {
	l.file.Close()
	l.wg.Wait()
	os.Remove(l.path)
}

// lastLine returns the last line of the log. The VMM must have ended.
func (l *logEnd) lastLine() string {
	// The VMM's last bytes may still be unread in the pipe. A zero byte behind them marks the end.
	if _, err := l.file.Write([]byte{0}); err == nil {
		select {
		case <-l.kept.marked:
		case <-time.After(time.Second): // not reached: no VMM writes any more
		}
	}
	return l.kept.lastLine()
}

// kept holds the end of what was written, up to a zero byte.
type kept struct {
	mu     sync.Mutex
	buf    []byte
	ended  bool
	marked chan struct{} // closed when the zero byte has come
}

func (k *kept) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		return len(b), nil
	}
	text, _, mark := bytes.Cut(b, []byte{0})
	k.buf = append(k.buf, text...)
	if extra := len(k.buf) - logKept; extra > 0 {
		k.buf = append(k.buf[:0], k.buf[extra:]...)
	}
	if mark {
		k.ended = true
		close(k.marked)
	}
	return len(b), nil
}

func (k *kept) lastLine() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := bytes.TrimSpace(k.buf)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
