package archive

import (
	"errors"

	"golang.org/x/sys/unix"
)

// bulk writes a large file in large pieces. It bypasses the page cache if the file system allows that: filling and
// emptying the cache takes an emulated guest more time than receiving the bytes. While one piece is written, the
// next one is gathered.
type bulk struct {
	queue  queue
	bufs   [2]bulkBuffer
	cur    int // index of the buffer that is filled
	fd     int
	at     int64 // offset of that buffer in the file
	direct bool
}

type bulkBuffer struct {
	mem  []byte // whole pages
	n    int    // bytes in use
	at   int64  // offset to which it is being written
	busy bool   // it is being written
}

const (
	bulkSize  = 1 << 20   // bytes of a write
	bulkLeast = 512 << 10 // smallest file that is written this way, in bytes
	pageSize  = 4096
)

// begin starts to gather a piece of the file fd at an offset.
func (b *bulk) begin(fd int, at int64) error {
	for i := range b.bufs {
		if b.bufs[i].mem != nil {
			continue
		}
		var err error // mmap, because Go's heap does not guarantee the alignment
		if b.bufs[i].mem, err = unix.Mmap(-1, 0, bulkSize, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			return err
		}
	}
	if b.queue.context == 0 {
		b.queue.open(len(b.bufs)) // if this fails, each write is synchronous
	}
	b.fd, b.at = fd, at
	b.setDirect(at%pageSize == 0)
	return nil
}

// setDirect turns the bypass of the page cache on, if the file system allows it, or off.
func (b *bulk) setDirect(on bool) {
	flags := 0
	if on {
		flags = unix.O_DIRECT
	}
	_, err := unix.FcntlInt(uintptr(b.fd), unix.F_SETFL, flags)
	b.direct = on && err == nil
}

// write adds p to the file.
func (b *bulk) write(p []byte) error {
	for len(p) > 0 {
		to := &b.bufs[b.cur]
		n := copy(to.mem[to.n:], p)
		p, to.n = p[n:], to.n+n
		if to.n == len(to.mem) {
			if err := b.next(); err != nil {
				return err
			}
		}
	}
	return nil
}

// next starts to write the full buffer, and waits for the other one.
func (b *bulk) next() error {
	full := &b.bufs[b.cur]
	if !b.direct || b.queue.context == 0 {
		return b.finish()
	}
	if err := b.queue.write(uint64(b.cur), b.fd, full.mem, b.at); err != nil {
		return b.finish() // finish returns the error
	}
	full.at, full.busy = b.at, true
	b.at += int64(full.n)
	b.cur = 1 - b.cur
	return b.wait()
}

// wait waits until the write of the buffer has ended.
func (b *bulk) wait() error {
	for b.bufs[b.cur].busy {
		id, n, err := b.queue.wait()
		if id >= uint64(len(b.bufs)) || !b.bufs[id].busy {
			return err
		}
		done := &b.bufs[id]
		done.busy = false
		if errors.Is(err, unix.EINVAL) { // this file does not support such writes
			b.setDirect(false)
			err = nil
		}
		if err == nil {
			err = b.rest(done.mem[n:done.n], done.at+int64(n))
		}
		if err != nil {
			return err
		}
		done.n = 0
	}
	return nil
}

// flush writes everything that is gathered. Afterwards the file takes ordinary writes again: the next piece may be
// small, and its memory is not aligned.
func (b *bulk) flush() error {
	last := b.cur
	b.cur = 1 - last
	err := b.wait()
	b.cur = last
	if err == nil {
		err = b.finish()
	}
	b.setDirect(false)
	return err
}

// finish writes the whole pages of the buffer directly, and the rest through the cache.
func (b *bulk) finish() error {
	p := &b.bufs[b.cur]
	whole := 0
	if b.direct {
		whole = p.n - p.n%pageSize
		err := writeAt(b.fd, p.mem[:whole], b.at)
		if errors.Is(err, unix.EINVAL) {
			whole, err = 0, nil
		}
		if err != nil {
			return err
		}
	}
	err := b.rest(p.mem[whole:p.n], b.at+int64(whole))
	b.at, p.n = b.at+int64(p.n), 0
	return err
}

// rest writes p through the cache.
func (b *bulk) rest(p []byte, at int64) error {
	if len(p) == 0 {
		return nil
	}
	b.setDirect(false)
	return writeAt(b.fd, p, at)
}

// close frees the buffers.
func (b *bulk) close() {
	b.queue.close()
	for _, p := range b.bufs {
		if p.mem != nil {
			unix.Munmap(p.mem)
		}
	}
}
