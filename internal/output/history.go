package output

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"

	"banger"
	"banger/internal/frame"
	"banger/internal/untrusted"
)

// history is what the files have at one time: the older file, if it is there, and then the newer.
type history struct {
	scanners []*scanner
	limits   []int64
	start    uint64 // position of the first record
}

// add adds a file, which may be absent.
func (h *history) add(path string) error {
	f, err := untrusted.Open(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	h.scanners = append(h.scanners, &scanner{file: f})
	h.limits = append(h.limits, min(st.Size(), MaxFile))
	return nil
}

func (h *history) close() {
	for _, s := range h.scanners {
		s.file.Close()
	}
}

// each calls f with all records, until it returns an error. It leaves out what follows a torn record in a file.
func (h *history) each(f func(record) error) error {
	position := h.start
	for i, s := range h.scanners {
		s.rewind()
		s.position = position
		for {
			r, err := s.next(h.limits[i])
			if err != nil {
				break
			}
			if err := f(r); err != nil {
				return err
			}
		}
		position = s.position
	}
	return nil
}

// locate finds the position of the first record. Records without a position end where the first one with it begins.
func (h *history) locate() {
	before := uint64(0) // bytes of records without a position
	h.each(func(r record) error {
		if r.said {
			h.start = r.position - min(before, r.position)
			return io.EOF
		}
		before += uint64(len(r.data))
		return nil
	})
}

// end returns the position behind the last record.
func (h *history) end() (position uint64) {
	h.each(func(record) error { return nil })
	for _, s := range h.scanners {
		position = s.position
	}
	return position
}

// write writes what v selects to w, but no more than its last lines if v.Tail is not negative. The lines are those of
// both streams together, and a last line without a line end counts as one.
func (h *history) write(v *window, tail int, w *frameWriter) error {
	skip := 0 // this many lines
	if tail >= 0 {
		lines, open := 0, false
		h.each(func(r record) error {
			if v.cut(&r) {
				lines += bytes.Count(r.data, []byte{'\n'})
				open = r.data[len(r.data)-1] != '\n'
			}
			return nil
		})
		if open {
			lines++
		}
		skip = max(lines-tail, 0)
		if skip == lines {
			return nil
		}
	}
	return h.each(func(r record) error {
		if !v.cut(&r) {
			return nil
		}
		for ; skip > 0; skip-- {
			end := bytes.IndexByte(r.data, '\n')
			if end < 0 {
				return nil
			}
			r.skip(end + 1)
		}
		return w.write(r)
	})
}

// skip leaves out the record's first n bytes.
func (r *record) skip(n int) { r.position, r.data = r.position+uint64(n), r.data[n:] }

// window is what a reader wants by time and position.
type window struct {
	banger.LogView
	past bool // the last record that was cut is later than what is wanted
}

// windowOf returns what v selects of h. A position behind all that there is cannot be one of this output, and selects
// all.
func windowOf(v banger.LogView, h *history) *window {
	if v.Position > 0 && v.Position > h.end() {
		v.Position = 0
	}
	return &window{LogView: v}
}

// cut leaves out what of r comes before the wanted position. It reports whether something wanted is left.
func (v *window) cut(r *record) bool {
	if r.position < v.Position {
		r.skip(int(min(v.Position-r.position, uint64(len(r.data)))))
	}
	v.past = !v.Until.IsZero() && r.time.After(v.Until)
	return len(r.data) > 0 && !r.time.Before(v.Since) && !v.past
}

// frameWriter writes records as frames of package frame.
type frameWriter struct {
	w      io.Writer
	stamps bool // a frame.Stamp comes before each record
	buf    []byte
}

func (f *frameWriter) write(r record) error {
	if len(r.data) == 0 {
		return nil
	}
	f.buf = f.buf[:0]
	if f.stamps {
		f.buf = frame.AppendStamp(f.buf, r.position, r.time)
	}
	at := len(f.buf)
	f.buf = append(f.buf, make([]byte, frame.Header)...)
	frame.PutHeader(f.buf[at:], r.stream, len(r.data))
	f.buf = append(f.buf, r.data...)
	_, err := f.w.Write(f.buf)
	return err
}

// maxTries bounds how often Read opens files that are always rotated meanwhile.
const maxTries = 10

// Exists reports whether there is output at path, even if it is empty.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Read writes what v selects of the output at path to w, as frames of frame.Stdout and frame.Stderr, and of frame.Stamp
// if v wants them. It does not follow. A Log may write at the same time.
func Read(path string, v banger.LogView, w io.Writer) error {
	for tries := 1; ; tries++ {
		h, whole, err := open(path)
		if err != nil {
			return err
		}
		if whole || tries == maxTries {
			defer h.close()
			return h.write(windowOf(v, &h), v.Tail, &frameWriter{w: w, stamps: v.Stamps})
		}
		h.close()
	}
}

// open opens both files. whole is false if they were rotated meanwhile.
func open(path string) (h history, whole bool, err error) {
	before, _ := os.Lstat(path)
	if err = errors.Join(h.add(path+".1"), h.add(path)); err != nil {
		h.close()
		return h, false, err
	}
	after, _ := os.Lstat(path)
	h.locate()
	return h, before == nil && after == nil || before != nil && after != nil && os.SameFile(before, after), nil
}
