package archive

import (
	"errors"

	"golang.org/x/sys/unix"
)

// bulk writes a large file in large pieces, past the page cache where the file
// system can: to fill the cache and to empty it again costs an emulated guest more
// time than to receive the bytes.
type bulk struct {
	buf    []byte // of whole pages
	fd     int
	n      int // used of buf
	at     int64
	direct bool
}

const (
	bulkSize  = 256 << 10 // bytes of a write
	bulkLeast = 512 << 10 // bytes of a file that is written so
	pageSize  = 4096
)

// begin starts the piece of the file fd at an offset.
func (b *bulk) begin(fd int, at int64) error {
	if b.buf == nil {
		var err error // not the heap's, which promises no alignment
		if b.buf, err = unix.Mmap(-1, 0, bulkSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			return err
		}
	}
	b.fd, b.n, b.at = fd, 0, at
	b.setDirect(at%pageSize == 0)
	return nil
}

func (b *bulk) setDirect(on bool) {
	flags := 0
	if on {
		flags = unix.O_DIRECT
	}
	_, err := unix.FcntlInt(uintptr(b.fd), unix.F_SETFL, flags)
	b.direct = on && err == nil
}

func (b *bulk) write(p []byte) error {
	for len(p) > 0 {
		n := copy(b.buf[b.n:], p)
		p, b.n = p[n:], b.n+n
		if b.n == len(b.buf) {
			if err := b.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes what is gathered; what is no whole page goes through the cache.
func (b *bulk) flush() error {
	whole := b.n
	if b.direct {
		whole -= b.n % pageSize
		err := writeAt(b.fd, b.buf[:whole], b.at)
		if errors.Is(err, unix.EINVAL) {
			whole, err = 0, nil
		}
		if err != nil {
			return err
		}
	} else {
		whole = 0
	}
	if rest := b.buf[whole:b.n]; len(rest) > 0 {
		b.setDirect(false)
		if err := writeAt(b.fd, rest, b.at+int64(whole)); err != nil {
			return err
		}
	}
	b.at += int64(b.n)
	b.n = 0
	return nil
}

func (b *bulk) close() {
	if b.buf != nil {
		unix.Munmap(b.buf)
	}
}
