// Package vector reads and writes several buffers by one system call, on files
// under the runtime's poller. It knows nothing of what the bytes mean.
package vector

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Max is the number of buffers that one call takes.
const Max = 32

// Read waits until raw has bytes, and reads them into v, of which it takes Max
// buffers at most. It returns 0 at the end of the file.
func Read(raw syscall.RawConn, v [][]byte) (n int, err error) {
	failed := raw.Read(func(fd uintptr) bool {
		n, err = retry(unix.Readv, fd, v[:min(len(v), Max)])
		return err != unix.EAGAIN
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, err
	}
	return n, nil
}

// Write writes all of v, whose elements it changes.
func Write(raw syscall.RawConn, v [][]byte) error {
	var failed error
	err := raw.Write(func(fd uintptr) bool {
		for len(v) > 0 {
			n, err := retry(unix.Writev, fd, v[:min(len(v), Max)])
			if err != nil {
				failed = err
				return err != unix.EAGAIN
			}
			v = consume(v, n)
		}
		failed = nil
		return true
	})
	return errors.Join(err, failed)
}

// Append appends p to v in pieces of size bytes at most, and returns v.
func Append(v [][]byte, p []byte, size int) [][]byte {
	for len(p) > 0 {
		n := min(len(p), size)
		v = append(v, p[:n])
		p = p[n:]
	}
	return v
}

// consume returns what is left of v after its first n bytes.
func consume(v [][]byte, n int) [][]byte {
	for len(v) > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v = v[1:]
	}
	if n > 0 {
		v[0] = v[0][n:]
	}
	return v
}

// retry repeats a call that a signal interrupts.
func retry(call func(int, [][]byte) (int, error), fd uintptr, v [][]byte) (n int, err error) {
	for {
		if n, err = call(int(fd), v); err != unix.EINTR {
			return n, err
		}
	}
}
