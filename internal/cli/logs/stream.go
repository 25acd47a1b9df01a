package logs

import (
	"bytes"
	"io"
	"sync"
	"time"

	"banger/internal/cli/render"
	"banger/internal/text"
)

// stream shows one of the two streams of an output.
type stream interface {
	// write shows bytes of a time, which is zero if it is not known.
	write(p []byte, at time.Time) error
	// flush shows what is held back until more comes.
	flush() error
}

// raw shows bytes unchanged or, on a terminal, as printable text.
type raw struct {
	w   io.Writer
	end func() error
}

func newRaw(w io.Writer) raw {
	to, end := render.Printable(w)
	return raw{to, end}
}

func (r raw) write(p []byte, _ time.Time) error {
	_, err := r.w.Write(p)
	return err
}

func (r raw) flush() error { return r.end() }

// maxLine is the maximum length in bytes of a line. A longer one is shown in pieces.
const maxLine = 64 << 10

// lines shows each line as a whole, behind a head.
type lines struct {
	mu    *sync.Mutex // all streams share it, so that no line comes within another
	w     io.Writer
	name  string // the head, before the time
	times bool
	// alone says that no other output comes between. A line that ends in pieces, or not at all, then stays as it is.
	// If not, each piece is shown as a line.
	alone bool

	buf    []byte    // the line up to now
	at     time.Time // when the first byte of buf came
	inside bool      // pieces of the line are shown already
}

// stampForm is docker's form of a time before a line.
const stampForm = "2006-01-02T15:04:05.000000000Z07:00 "

func (l *lines) write(p []byte, at time.Time) error {
	for len(p) > 0 {
		if len(l.buf) >= maxLine && p[0] != '\n' {
			if err := l.flush(); err != nil {
				return err
			}
		}
		if len(l.buf) == 0 {
			l.at = at
		}
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			n = len(p)
		}
		n = min(n, max(maxLine-len(l.buf), 1))
		l.buf, p = append(l.buf, p[:n]...), p[n:]
		if l.buf[len(l.buf)-1] == '\n' {
			if err := l.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush shows the line, or the piece of one.
func (l *lines) flush() error {
	if len(l.buf) == 0 {
		return nil
	}
	var b bytes.Buffer
	if !l.inside {
		b.WriteString(l.name)
		if l.times && !l.at.IsZero() {
			b.WriteString(l.at.UTC().Format(stampForm))
		}
	}
	ended := l.buf[len(l.buf)-1] == '\n'
	if render.IsTerminal(l.w) {
		to := text.NewWriter(&b)
		to.Write(l.buf)
		to.Flush()
	} else {
		b.Write(l.buf)
	}
	if !ended && !l.alone {
		b.WriteByte('\n')
	}
	l.buf, l.inside = l.buf[:0], !ended && l.alone
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.w.Write(b.Bytes())
	return err
}
