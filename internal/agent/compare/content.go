package compare

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
	"golang.org/x/sys/unix"

	"banger"
)

// chunk is how many bytes of a file are read at once.
const chunk = 256 << 10

// open opens a regular file, and nothing else.
func (e *entry) open() (*os.File, error) {
	fd, err := unix.Openat(e.at, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, errors.Join(err, errors.New("it changed while it was compared"))
	}
	return os.NewFile(uintptr(fd), e.name), nil
}

// sameContent reports whether two regular files hold the same bytes. A hole is zeros.
func (w *walker) sameContent(b, a *entry) (bool, error) {
	if b.st.Size != a.st.Size {
		return false, nil
	}
	before, err := b.open()
	if err != nil {
		return false, err
	}
	defer before.Close()
	after, err := a.open()
	if err != nil {
		return false, err
	}
	defer after.Close()
	for i := range w.chunks {
		if w.chunks[i] == nil {
			w.chunks[i] = make([]byte, chunk)
		}
	}
	for at := int64(0); at < b.st.Size; {
		if err := w.ctx.Err(); err != nil {
			return false, err
		}
		if to := min(nextData(before, at), nextData(after, at)); to > at { // both have a hole
			at = to
			continue
		}
		n := int(min(chunk, b.st.Size-at))
		one, other := w.chunks[0][:n], w.chunks[1][:n]
		if _, err := before.ReadAt(one, at); err != nil {
			return false, err
		}
		if _, err := after.ReadAt(other, at); err != nil {
			return false, err
		}
		if !bytes.Equal(one, other) {
			return false, nil
		}
		at += int64(n)
	}
	return true, nil
}

// nextData returns where the next data of a file is, from at on: at itself if the file system does not know.
func nextData(f *os.File, at int64) int64 {
	to, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // there is none up to the end
		return 1<<63 - 1
	case err != nil:
		return at
	}
	return max(to, at)
}

// text writes into c how the text of a file differs, if that is wanted. What is no regular file has no text.
func (w *walker) text(c *banger.FileChange, b, a *entry) error {
	if !w.o.Patch {
		return nil
	}
	before, isText, err := w.textOf(b)
	if err != nil {
		return err
	}
	after, alsoText, err := w.textOf(a)
	if err != nil {
		return err
	}
	if !isText || !alsoText {
		c.Binary = true
		return nil
	}
	c.Patch, err = patch(c, before, after, b.isFile(), a.isFile())
	return err
}

func (e *entry) isFile() bool { return e != nil && e.kind() == unix.S_IFREG }

// textOf returns the text of a regular file, or false if it has another content.
func (w *walker) textOf(e *entry) (string, bool, error) {
	if !e.isFile() || e.st.Size == 0 {
		return "", true, nil
	}
	if e.st.Size > w.o.Text {
		return "", false, nil
	}
	f, err := e.open()
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, w.o.Text))
	if err != nil {
		return "", false, err
	}
	isText := utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 && bytes.Count(data, []byte("\n")) <= w.o.Lines
	return string(data), isText, nil
}

// patch returns a unified diff. A side that is no regular file is /dev/null.
func patch(c *banger.FileChange, before, after string, wasFile, isFile bool) (string, error) {
	if before == after {
		return "", nil
	}
	path := c.Path
	if c.RawPath != nil {
		path = string(c.RawPath)
	}
	old, now := "/dev/null", "/dev/null"
	if wasFile {
		old = label("a" + path)
	}
	if isFile {
		now = label("b" + path)
	}
	text, err := udiff.ToUnified(old, now, before, udiff.Lines(before, after), udiff.DefaultContextLines)
	if err != nil {
		return "", fmt.Errorf("comparing the lines: %w", err)
	}
	return text, nil
}

// label returns the name of a file for a patch. A name with characters that would end it is quoted as git and patch(1)
// do.
func label(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool {
		return r < ' ' || r == '"' || r == '\\' || r == 0x7f || r == utf8.RuneError
	}) {
		if strings.Contains(name, " ") {
			return name + "\t" // which ends it
		}
		return name
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
