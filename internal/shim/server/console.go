package server

import (
	"context"
	"io"
	"os"
	"sync"

	"banger/internal/shim"
	"banger/internal/text"
	"banger/internal/untrusted"
)

// console is the bounded log of the guest's output. Its Write never fails, because a full host disk must not stop a
// guest.
type console struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64 // bytes in file
	// total is the number of bytes since the log was opened, in all files. It is the position of the file's end.
	total int64
	grown chan struct{} // closed and replaced at each write
}

func openConsole(path string) (*console, error) {
	f, err := untrusted.Open(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &console{path: path, file: f, size: st.Size(), total: st.Size(), grown: make(chan struct{})}, nil
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size+int64(len(p)) > shim.MaxConsole {
		c.rotate()
	}
	n, _ := c.file.Write(p)
	c.size += int64(n)
	c.total += int64(n)
	close(c.grown)
	c.grown = make(chan struct{})
	return len(p), nil
}

func (c *console) rotate() {
	if err := os.Rename(c.path, c.path+".1"); err != nil {
		return
	}
	f, err := untrusted.Create(c.path, 0o600)
	if err != nil {
		return
	}
	c.file.Close()
	c.file, c.size = f, 0
}

func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.file.Close()
}

// follow writes the last tail lines and then new output, until the VMM has ended and everything is written, ctx is
// done, or w fails. If a reader is too slow, it loses the output that rotation removes.
func (c *console) follow(ctx context.Context, ended <-chan struct{}, tail int, w io.Writer) {
	c.mu.Lock()
	log, pos := shim.ReadLog(c.path), c.total
	c.mu.Unlock()
	if _, err := w.Write(text.LastLines(log, tail)); err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	last := false
	for {
		n, grown := c.readAt(buf, &pos)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		if last {
			return
		}
		select {
		case <-grown:
		case <-ended:
			last = true // once more, for output in between
		case <-ctx.Done():
			return
		}
	}
}

// readAt reads from position pos and advances pos.
func (c *console) readAt(buf []byte, pos *int64) (int, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := c.total - c.size
	*pos = max(*pos, start)
	if *pos >= c.total {
		return 0, c.grown
	}
	n, _ := c.file.ReadAt(buf, *pos-start)
	*pos += int64(n)
	return n, c.grown
}
