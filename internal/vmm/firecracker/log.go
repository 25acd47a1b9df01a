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

// logEnd is where Firecracker writes its log. It opens the path once and writes for life,
// so a file could not be rotated; of a pipe we keep the end. It drops what a full pipe
// does not take.
type logEnd struct {
	path string
	file *os.File
	wg   sync.WaitGroup
	kept kept
}

// openLog makes the pipe in dir and reads it until close.
func openLog(dir string) (*logEnd, error) {
	l := &logEnd{path: filepath.Join(dir, logPipe), kept: kept{marked: make(chan struct{})}}
	var err error
	if l.file, err = openPipe(l.path); err != nil {
		return nil, err
	}
	l.wg.Go(func() { io.Copy(&l.kept, l.file) }) // ends with close
	return l, nil
}

// openPipe makes a named pipe and opens it for reading.
func openPipe(path string) (*os.File, error) {
	os.Remove(path)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0) // a writer is always there: no end before close
	if err != nil {
		os.Remove(path)
	}
	return f, err
}

// close ends the reading and removes the pipe.
func (l *logEnd) close() {
	l.file.Close()
	l.wg.Wait()
	os.Remove(l.path)
}

// lastLine returns the last line of the log of a VMM that has ended.
func (l *logEnd) lastLine() string {
	// What it wrote is in the pipe, perhaps unread: a mark behind it tells when it is read.
	if _, err := l.file.Write([]byte{0}); err == nil {
		select {
		case <-l.kept.marked:
		case <-time.After(time.Second): // no VMM writes any more; this is never met
		}
	}
	return l.kept.lastLine()
}

// kept is the end of what was written, up to a byte of zero, which marks the end.
type kept struct {
	mu     sync.Mutex
	buf    []byte
	ended  bool
	marked chan struct{} // closed at the mark
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
