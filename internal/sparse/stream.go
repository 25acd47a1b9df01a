package sparse

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// A stream has the size of the file, and then for each piece of data its offset, its length and its bytes; a piece of
// length 0 at the file's size ends it. Numbers have 8 bytes, the most significant one first.

// ErrStream means that a stream is not one that Send writes, or is cut short.
var ErrStream = errors.New("a file without its holes came in a wrong form, or not whole")

// ErrSize means that the file of a stream is larger than the receiver takes.
var ErrSize = errors.New("the file is larger than what is taken")

// Send writes f to w without its holes. It changes the offset of f.
func Send(w io.Writer, f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := binary.Write(w, binary.BigEndian, uint64(st.Size())); err != nil {
		return err
	}
	err = Each(f, func(start, end int64) error {
		if err := binary.Write(w, binary.BigEndian, [2]uint64{uint64(start), uint64(end - start)}); err != nil {
			return err
		}
		_, err := io.Copy(w, io.NewSectionReader(f, start, end-start))
		return err
	})
	if err != nil {
		return err
	}
	return binary.Write(w, binary.BigEndian, [2]uint64{uint64(st.Size()), 0})
}

// File is what Receive writes to. It is empty at first.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Receive writes what Send has written to r into f, and returns the size. It returns ErrSize for a file of more than
// limit bytes, and ErrStream for a stream that is not whole or not ascending.
func Receive(r io.Reader, f File, limit int64) (size int64, err error) {
	var n uint64
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return 0, short(err)
	}
	if n > uint64(limit) {
		return 0, ErrSize
	}
	size = int64(n)
	if err := f.Truncate(size); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	for at := uint64(0); ; {
		var piece [2]uint64
		if err := binary.Read(r, binary.BigEndian, &piece); err != nil {
			return 0, short(err)
		}
		start, length := piece[0], piece[1]
		if start < at || start > n || length > n-start {
			return 0, ErrStream
		}
		if length == 0 {
			if start != n {
				return 0, ErrStream
			}
			return size, nil
		}
		at = start + length
		into := io.NewOffsetWriter(f, int64(start))
		if copied, err := io.CopyBuffer(writer{into}, io.LimitReader(r, int64(length)), buf); err != nil {
			return 0, err
		} else if uint64(copied) != length {
			return 0, ErrStream
		}
	}
}

// writer hides the other methods of a writer, so that CopyBuffer uses its buffer.
type writer struct{ io.Writer }

func short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrStream
	}
	return err
}
