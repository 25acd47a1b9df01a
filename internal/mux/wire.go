// Package mux makes many flow-controlled streams from one byte channel. The channel loses data that is sent to a
// closed end, and may still deliver data of an earlier peer. The package holds both ends, the host's and the guest's.
//
// Everything that arrives from the other end is considered hostile: every length is bounded, and a peer that breaks a
// rule ends only its own session. The package must not know what streams carry, or which VMM carries the channel.
package mux

import (
	"encoding/binary"
	"fmt"
	"io"

	"banger"
	"banger/internal/frame"
)

// Version and Oldest are the newest and the oldest version of frames that this end speaks. Both ends say theirs in the
// hello, and use the newest that both speak. The form of the hello itself never changes.
const (
	Version = 4
	Oldest  = 4
)

// The hello opens a session. The host repeats it until the guest has answered with the same nonce, because bytes that
// arrive while the guest's port is closed are lost. Hello and answer are both helloSize long: magic, nonce, newest
// version, oldest version, zeros.
const (
	helloMagic = "BANGER-HELLO-HG\n"
	replyMagic = "BANGER-REPLY-GH\n"
	nonceSize  = 16
	helloSize  = headerSize + nonceSize + 16
)

type nonce [nonceSize]byte

// session returns the part of the nonce that frames carry.
func (n nonce) session() uint32 { return binary.BigEndian.Uint32(n[:4]) | 1<<31 }

func appendHello(b []byte, magic string, n nonce) []byte {
	b = append(b, magic...)
	b = append(b, n[:]...)
	b = binary.BigEndian.AppendUint32(b, Version)
	b = binary.BigEndian.AppendUint32(b, Oldest)
	return append(b, make([]byte, 8)...)
}

// ours are the versions that this end speaks.
var ours = banger.Versions{Newest: Version, Oldest: Oldest}

// readHelloBody reads the part of a hello after the magic.
func readHelloBody(r io.Reader) (n nonce, v banger.Versions, err error) {
	var b [helloSize - headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return n, v, err
	}
	copy(n[:], b[:])
	v.Newest = int(binary.BigEndian.Uint32(b[nonceSize:]))
	v.Oldest = int(binary.BigEndian.Uint32(b[nonceSize+4:]))
	return n, v, nil
}

// scanFor reads up to and including magic.
func scanFor(r io.ByteReader, magic string) error {
	var window [headerSize]byte // a ring of the last bytes
	for i := 0; ; i++ {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		window[i%headerSize] = b
		if b != magic[headerSize-1] || i < headerSize-1 {
			continue
		}
		match := true
		for j := range headerSize {
			match = match && window[(i+1+j)%headerSize] == magic[j]
		}
		if match {
			return nil
		}
	}
}

// A frame is a header and its payload. The header's first bytes are neither zero nor the start of a magic, so
// padding, hellos and frames can be distinguished.
const (
	headerSize = 16
	frameMagic = 0xBA9E
	// A whole frame of package frame fits. The length is a multiple of 8, for aligned copies.
	maxPayload = frame.Header + frame.MaxData
)

type frameType byte

const (
	frameOpen   frameType = 1 + iota // payload: port, uint32
	frameData                        // payload: bytes
	frameWindow                      // payload: credit in bytes, uint32
	frameFin                         // no more data from the sender
	frameReset                       // the stream has ended; payload: reason
)

type header struct {
	typ     frameType
	session uint32
	stream  uint32
	length  uint32
}

func appendHeader(b []byte, h header) []byte {
	b = binary.BigEndian.AppendUint16(b, frameMagic)
	b = append(b, byte(h.typ), 0)
	b = binary.BigEndian.AppendUint32(b, h.session)
	b = binary.BigEndian.AppendUint32(b, h.stream)
	return binary.BigEndian.AppendUint32(b, h.length)
}

// parseHeader checks everything that does not depend on a session.
func parseHeader(b []byte) (header, error) {
	h := header{typ: frameType(b[2]), session: binary.BigEndian.Uint32(b[4:]),
		stream: binary.BigEndian.Uint32(b[8:]), length: binary.BigEndian.Uint32(b[12:])}
	switch {
	case binary.BigEndian.Uint16(b) != frameMagic || b[3] != 0:
		return h, fmt.Errorf("no frame starts with % x", b[:4])
	case h.typ < frameOpen || h.typ > frameReset:
		return h, fmt.Errorf("unknown frame type %d", h.typ)
	case h.length > maxPayload:
		return h, fmt.Errorf("frame of %d bytes, over the limit of %d", h.length, maxPayload)
	case !lengthFits(h):
		return h, fmt.Errorf("frame of type %d with %d bytes", h.typ, h.length)
	}
	return h, nil
}

func lengthFits(h header) bool {
	switch h.typ {
	case frameOpen, frameWindow:
		return h.length == 4
	case frameFin:
		return h.length == 0
	}
	return true
}
