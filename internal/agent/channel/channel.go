// Package channel is the guest's end of the way to the host where that is a serial port: the port, and its bytes. It
// must not know what the bytes say.
package channel

import (
	"os"
	"syscall"
	"time"

	"banger/internal/agent/vector"
)

// The kernel's driver keeps what arrives in pages and takes at most writePiece
// bytes per call (drivers/char/virtio_console.c); it serves each part of a vector
// as one call. So a vector of such parts moves much by one system call. Both are in
// bytes.
const (
	readPiece  = 4 << 10
	writePiece = 32 << 10
)

// Channel is a virtio-serial port. Its file is non-blocking, under the runtime's
// poller: a blocking read would keep the runtime's only processor until its
// monitor takes it away, and a blocking write spins in the driver until the host
// has taken the bytes. One goroutine may read and one may write.
type Channel struct {
	file    *os.File
	raw     syscall.RawConn
	in, out [][]byte // vectors, for reuse
}

// New returns the channel over an open port, which does not block.
func New(fd int) (*Channel, error) {
	port := os.NewFile(uintptr(fd), portName)
	raw, err := port.SyscallConn()
	return &Channel{file: port, raw: raw}, err
}

// Read waits for bytes; an end of file means that the host is away for now.
func (c *Channel) Read(p []byte) (n int, err error) {
	c.in = vector.Append(c.in[:0], p[:min(len(p), vector.Max*readPiece)], readPiece)
	for {
		if n, err = vector.Read(c.raw, c.in); n > 0 || err != nil {
			return n, err
		}
		time.Sleep(20 * time.Millisecond) // the port has no event for "the host is back"
	}
}

func (c *Channel) Write(p []byte) (int, error) {
	if err := c.WriteVector([][]byte{p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteVector writes all of parts.
func (c *Channel) WriteVector(parts [][]byte) error {
	c.out = c.out[:0]
	for _, p := range parts {
		c.out = vector.Append(c.out, p, writePiece)
	}
	return vector.Write(c.raw, c.out)
}
