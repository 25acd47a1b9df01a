package layer

import (
	"crypto/sha256"
	"hash"
	"io"

	"banger/internal/blob"
)

// HashReader hashes what is read through it, on its own goroutine.
type HashReader struct {
	r    io.Reader
	buf  []byte
	full chan []byte
	free chan []byte
	done chan struct{}
	hash hash.Hash
}

const hashBuffer = 256 << 10

// NewHashReader returns a HashReader of r. The caller calls Stop or Sum at the end.
func NewHashReader(r io.Reader) *HashReader {
	h := &HashReader{
		r:    r,
		buf:  make([]byte, 0, hashBuffer),
		full: make(chan []byte, 1),
		free: make(chan []byte, 2),
		done: make(chan struct{}),
		hash: sha256.New(),
	}
	h.free <- make([]byte, 0, hashBuffer)
	go func() { // ends at Stop
		defer close(h.done)
		for p := range h.full {
			h.hash.Write(p)
			h.free <- p[:0]
		}
	}()
	return h
}

// Read implements io.Reader.
func (h *HashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	for p = p[:n]; len(p) > 0; {
		room := h.buf[len(h.buf):cap(h.buf)]
		k := copy(room, p)
		h.buf, p = h.buf[:len(h.buf)+k], p[k:]
		if len(h.buf) == cap(h.buf) {
			h.full <- h.buf
			h.buf = <-h.free
		}
	}
	return n, err
}

// Stop ends the goroutine. It may be called twice.
func (h *HashReader) Stop() {
	if h.full != nil {
		close(h.full)
		<-h.done
		h.full = nil
	}
}

// Sum stops the hashing and returns the digest of everything that was read. It may be called once, before Stop.
func (h *HashReader) Sum() string {
	h.full <- h.buf
	h.Stop()
	return blob.DigestOf(h.hash)
}
