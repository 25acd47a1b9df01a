package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// portName is the virtio-serial port that leads to the host.
const portName = "banger.agent"

// The kernel's driver keeps what arrives in pages and takes at most writePiece
// bytes per call (drivers/char/virtio_console.c); it serves each part of a vector
// as one call. So a vector of such parts moves much for one system call.
const (
	readPiece  = 4 << 10
	writePiece = 32 << 10
	maxPieces  = 32
)

// channel is a virtio-serial port. Its file is non-blocking, under the runtime's
// poller: a blocking read would keep the runtime's only processor until its
// monitor takes it away, and a blocking write spins in the driver until the host
// has taken the bytes. One goroutine may read and one may write.
type channel struct {
	file    *os.File
	raw     syscall.RawConn
	in, out [][]byte // vectors, for reuse
}

// openChannel opens the port to the host and keeps it open for life: what
// arrives at a closed port is lost.
func openChannel() (*channel, error) {
	ports, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		name, err := os.ReadFile(p)
		if err != nil || strings.TrimSpace(string(name)) != portName {
			continue
		}
		f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(p)), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("opening the channel to the host: %w", err)
		}
		raw, err := f.SyscallConn()
		return &channel{file: f, raw: raw}, err
	}
	return nil, errors.New("there is no channel to the host")
}

// Read waits for bytes; an end of file means that the host is away for now.
func (c *channel) Read(p []byte) (n int, err error) {
	c.in = pieces(c.in[:0], p, readPiece)
	for {
		perr := c.raw.Read(func(fd uintptr) bool {
			n, err = retry(unix.Readv, fd, c.in)
			return err != unix.EAGAIN
		})
		switch {
		case perr != nil:
			return 0, perr
		case err != nil:
			return 0, err
		case n > 0:
			return n, nil
		}
		time.Sleep(20 * time.Millisecond) // the port has no event for "the host is back"
	}
}

func (c *channel) Write(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		c.out = pieces(c.out[:0], p[total:], writePiece)
		var n int
		var err error
		perr := c.raw.Write(func(fd uintptr) bool {
			n, err = retry(unix.Writev, fd, c.out)
			return err != unix.EAGAIN
		})
		if perr != nil || err != nil {
			return total, errors.Join(perr, err)
		}
		if n == 0 {
			return total, io.ErrShortWrite
		}
		total += n
	}
	return total, nil
}

// retry makes a call that a signal may interrupt.
func retry(call func(int, [][]byte) (int, error), fd uintptr, v [][]byte) (n int, err error) {
	for {
		if n, err = call(int(fd), v); err != unix.EINTR {
			return n, err
		}
	}
}

// pieces appends the first maxPieces of p to v, each of size bytes at most.
func pieces(v [][]byte, p []byte, size int) [][]byte {
	for len(p) > 0 && len(v) < maxPieces {
		n := min(len(p), size)
		v = append(v, p[:n])
		p = p[n:]
	}
	return v
}
