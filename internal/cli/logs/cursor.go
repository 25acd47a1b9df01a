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

	"banger"
)

// key names an output in a file of cursors.
type key struct{ vm, output string } // the VM's id, and which of its outputs it is

// cursors are how many bytes of outputs a user has seen.
type cursors struct {
	mu   sync.Mutex
	seen map[key]uint64
}

// maxCursors is the maximum size in bytes of a file of cursors.
const maxCursors = 1 << 20

// readCursors reads a file of cursors, which need not exist. It has one line for each output: the VM's id, the output,
// and the position up to which it was seen.
func readCursors(path string) (*cursors, error) {
	c := &cursors{seen: map[key]uint64{}}
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
	defer c.mu.Unlock()
	c.seen[k] = position
}

// write replaces the file at path. The old file or the new one is there at any time.
func (c *cursors) write(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := []string{}
	for k, position := range c.seen {
		lines = append(lines, fmt.Sprintf("%s %s %d\n", k.vm, k.output, position))
	}
	slices.Sort(lines)
	f, err := os.CreateTemp(filepath.Dir(path), ".cursor-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("cannot write the cursor: %w", err)
	}
	_, err = io.WriteString(f, strings.Join(lines, ""))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("cannot write the cursor: %w", err)
	}
	return nil
}
