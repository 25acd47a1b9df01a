package logs

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"banger/internal/cli/render"
	"banger/internal/frame"
	"banger/internal/text"
)

// stream shows one of the two streams of an output.
type stream interface {
	// write shows bytes of a time, which is zero if it is not known.
	write(p []byte, at time.Time) error
	// flush shows what is held back until more comes.
	flush() error
	// held returns how many bytes are held back.
	held() int
}

// streams are both streams of an output.
type streams struct{ out, err holder }

// holder is a stream, and from which position on it holds bytes back.
type holder struct {
	stream
	from uint64
}

// write shows data of one stream, which is at a place.
func (s *streams) write(t frame.Type, p []byte, at place) error {
	to := &s.out
	if t == frame.Stderr {
		to = &s.err
	}
	err := to.stream.write(p, at.at)
	if n := to.held(); n > 0 && n <= len(p) { // if there are more, they begin where they began
		to.from = at.next + uint64(len(p)-n)
	}
	return err
}

// flush shows what is held back.
func (s *streams) flush() error { return errors.Join(s.out.flush(), s.err.flush()) }

// upTo returns up to where all is shown, if next is the position that comes next.
func (s *streams) upTo(next uint64) uint64 {
	for _, h := range []holder{s.out, s.err} {
		if h.held() > 0 {
			next = min(next, h.from)
		}
	}
	return next
}

// raw shows bytes unchanged or, on a terminal, as printable text.
type raw struct {
	w    io.Writer
	text *text.Writer // nil: w is no terminal
}

func newRaw(w io.Writer) raw {
	if !render.IsTerminal(w) {
		return raw{w, nil}
	}
	to := text.NewWriter(w)
	return raw{to, to}
}

func (r raw) write(p []byte, _ time.Time) error {
	_, err := r.w.Write(p)
	return err
}

func (r raw) flush() error {
	if r.text == nil {
		return nil
	}
	return r.text.Flush()
}

func (r raw) held() int {
	if r.text == nil {
		return 0
	}
	return r.text.Held()
}

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

func (l *lines) held() int { return len(l.buf) }

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
