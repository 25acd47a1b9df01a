package ext4

import (
	"encoding/binary"
	"math/bits"
)

const (
	hashHalfMD4  = 1
	unsignedHash = 2 // s_flags: names are hashed as unsigned bytes
)

// newHashSeed returns the initial state of the hash of every name: the superblock's seed, or MD4's
// own initial state if that is zero.
func newHashSeed(seed [16]byte) (s [4]uint32) {
	if seed == [16]byte{} {
		return [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	}
	for i := range s {
		s[i] = binary.LittleEndian.Uint32(seed[4*i:])
	}
	return s
}

// nameHash returns ext4's half MD4 of a name (fs/ext4/hash.c). It is even, and below the value that
// marks the end of a directory.
func nameHash(seed [4]uint32, name string) uint32 {
	state := seed
	for rest := name; len(rest) > 0; rest = rest[min(len(rest), 32):] {
		halfMD4(&state, hashInput(rest))
	}
	hash := state[1] &^ 1
	const end = (1<<31 - 1) << 1
	if hash == end {
		hash = end - 2
	}
	return hash
}

// hashInput packs the first 32 bytes of s into words, padded with its length.
func hashInput(s string) (in [8]uint32) {
	pad := uint32(len(s)) | uint32(len(s))<<8
	pad |= pad << 16
	for i := range in {
		in[i] = pad
		for _, c := range []byte(s[min(4*i, len(s)):min(4*i+4, len(s))]) {
			in[i] = in[i]<<8 + uint32(c)
		}
	}
	return in
}

// halfMD4 mixes in into state. It does MD4's three rounds with half the steps.
func halfMD4(state *[4]uint32, in [8]uint32) {
	f := func(x, y, z uint32) uint32 { return z ^ x&(y^z) }
	g := func(x, y, z uint32) uint32 { return x&y + (x^y)&z }
	h := func(x, y, z uint32) uint32 { return x ^ y ^ z }
	s := *state
	for _, round := range []struct {
		mix    func(x, y, z uint32) uint32
		add    uint32
		order  [8]int
		rotate [4]int
	}{
		{f, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19}},
		{g, 0x5A827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13}},
		{h, 0x6ED9EBA1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15}},
	} {
		for i, word := range round.order {
			// a, d, c, b in turn.
			a := (4 - i%4) % 4
			b, c, d := s[(a+1)%4], s[(a+2)%4], s[(a+3)%4]
			s[a] = bits.RotateLeft32(s[a]+round.mix(b, c, d)+in[word]+round.add, round.rotate[i%4])
		}
	}
	for i := range state {
		state[i] += s[i]
	}
}
