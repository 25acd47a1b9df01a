package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
)

// key names an output in a file of cursors.
type key struct{ vm, output string } // the VM's id, and which of its outputs it is

// cursors are how many bytes of outputs a user has seen.
type cursors struct {
	path  string        // of their file
	moves chan struct{} // has a value if a position has moved since the file was written

	mu    sync.Mutex
	seen  map[key]uint64
	moved map[key]bool // the outputs of this call
}

// pace is the time between two writes of a file of cursors while output comes.
const pace = time.Second

func newCursors(path string) *cursors {
	return &cursors{path: path, moves: make(chan struct{}, 1), seen: map[key]uint64{}, moved: map[key]bool{}}
}

// maxCursors is the maximum size in bytes of a file of cursors.
const maxCursors = 1 << 20

// readCursors reads a file of cursors, which need not exist. It has one line for each output: the VM's id, the output,
// and the position up to which it was seen.
func readCursors(path string) (*cursors, error) {
	c := newCursors(path)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the cursor: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCursors))
	if err != nil {
		return nil, fmt.Errorf("cannot read the cursor: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		var k key
		var position uint64
		n, err := fmt.Sscanf(line, "%s %s %d\n", &k.vm, &k.output, &position)
		if n != 3 || err != nil || !banger.ValidID(k.vm) {
			return nil, banger.Errorf(banger.CodeInvalid, "%s is no file of cursors: it has the line %.100q", path, line).
				WithHint("name another file, which banger logs then makes")
		}
		c.seen[k] = position
	}
	return c, nil
}

// of returns up to where an output was seen. It returns false for one that was not.
func (c *cursors) of(k key) (position uint64, ok bool) {
	if c == nil {
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	position, ok = c.seen[k]
	return position, ok
}

// set says up to where an output was seen.
func (c *cursors) set(k key, position uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.seen[k], c.moved[k] = position, true
	c.mu.Unlock()
	select {
	case c.moves <- struct{}{}:
	default:
	}
}

// keep writes the file when a position moves, at most once in pace, so that a call that is killed has a cursor too. It
// calls warn for the first failure. stop ends that, and writes the file once more.
func (c *cursors) keep(warn func(error)) (stop func() error) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for warned := false; ; {
			select {
			case <-c.moves:
			case <-quit:
				return
			}
			if err := c.write(); err != nil && !warned {
				warned = true
				warn(err)
			}
			select {
			case <-time.After(pace):
			case <-quit:
				return
			}
		}
	}()
	return func() error {
		close(quit)
		<-done
		return c.write()
	}
}

// write writes what this call has seen into the file, beside what other calls have written there. The old file or the
// new one is there at any time.
func (c *cursors) write() error {
	f, err := openLocked(filepath.Join(filepath.Dir(c.path), "."+filepath.Base(c.path)+".new"))
	if err != nil {
		return fmt.Errorf("cannot write the cursor: %w", err)
	}
	defer f.Close() // which lets the next one write
	now, err := readCursors(c.path)
	if err == nil {
		if _, err = io.WriteString(f, now.with(c)); err == nil {
			err = errors.Join(f.Chmod(0o600), f.Sync())
		}
		if err == nil {
			err = os.Rename(f.Name(), c.path)
		}
		if err != nil {
			err = fmt.Errorf("cannot write the cursor: %w", err)
		}
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// with returns the lines of a file that has c, and what the call of newer has seen.
func (c *cursors) with(newer *cursors) string {
	newer.mu.Lock()
	defer newer.mu.Unlock()
	for k := range newer.moved {
		c.seen[k] = newer.seen[k]
	}
	lines := []string{}
	for k, position := range c.seen {
		lines = append(lines, fmt.Sprintf("%s %s %d\n", k.vm, k.output, position))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// openLocked makes the file at path, which is empty, or takes the one that a killed call has left. No other call has it
// until it is closed.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		for syscall.Flock(int(f.Fd()), syscall.LOCK_EX) == syscall.EINTR {
		}
		ours, err := f.Stat()
		if there, gone := os.Lstat(path); err == nil && gone == nil && os.SameFile(ours, there) {
			return f, f.Truncate(0)
		}
		f.Close() // another call has renamed it meanwhile
	}
}
