//go:build (amd64 || arm64) && !banger_noinflate

package inflate

import (
	"encoding/binary"
	"fmt"
)

// Flags of a gzip member (RFC 1952 section 2.3.1). FTEXT, bit 0, is not needed here.
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	flagReserved  = 7 << 5

	maxText = 64 << 10 // longest accepted FNAME or FCOMMENT in bytes, with its zero
)

// header reads the header of a member (RFC 1952 section 2.3). At the end of the input after the
// last member it returns io.EOF. There it accepts zeros up to the end of the input, as gzip(1) does
// for the padding of tapes.
func (s *source) header(first bool) error {
	b, err := s.ReadByte()
	if first {
		err = noEOF(err)
	}
	if err != nil {
		return err
	}
	if b == 0 && !first {
		return s.padding()
	}
	if b != 0x1f {
		return s.bad("no gzip magic")
	}
	if b, err = s.ReadByte(); err != nil {
		return noEOF(err)
	}
	if b != 0x8b {
		return s.bad("no gzip magic")
	}
	var h [8]byte // CM, FLG, MTIME, XFL, OS
	if err := s.full(h[:]); err != nil {
		return err
	}
	if h[0] != 8 {
		return s.bad("compression method is not DEFLATE")
	}
	if h[1]&flagReserved != 0 {
		return s.bad("reserved flags")
	}
	return s.fields(h[1])
}

// fields skips the optional fields after the fixed part of a header.
func (s *source) fields(flags byte) error {
	if flags&flagExtra != 0 {
		var n [2]byte
		if err := s.full(n[:]); err != nil {
			return err
		}
		if err := s.skip(int(binary.LittleEndian.Uint16(n[:]))); err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		if err := s.text(); err != nil {
			return err
		}
	}
	if flags&flagHeaderCRC != 0 {
		return s.skip(2)
	}
	return nil
}

// text skips a text that ends with a zero.
func (s *source) text() error {
	for range maxText {
		b, err := s.ReadByte()
		if err != nil {
			return noEOF(err)
		}
		if b == 0 {
			return nil
		}
	}
	return s.bad("text too long")
}

// padding accepts zeros up to the end of the input, where it returns io.EOF.
func (s *source) padding() error {
	for {
		b, err := s.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return s.bad("data after the zeros that follow the last member")
		}
	}
}

// trailer reads CRC32 and ISIZE (RFC 1952 section 2.3.1). It returns an error if ISIZE is not size,
// modulo 2^32.
func (s *source) trailer(size uint32) error {
	var t [8]byte
	if err := s.full(t[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(t[4:]) != size {
		return s.corrupt("member is not as long as its ISIZE")
	}
	return nil
}

func (s *source) bad(what string) error {
	return fmt.Errorf("%w: %s before input byte %d", ErrHeader, what, s.offset())
}

func (s *source) corrupt(what string) error {
	return fmt.Errorf("%w: %s before input byte %d", ErrCorrupt, what, s.offset())
}
