//go:build (amd64 || arm64) && !banger_noinflate

package inflate

import "math/bits"

// An entry of a decoding table says all about a code:
//
//	bits 0-7    the bits to use: the code's and the extra ones
//	bits 8-11   the bits of the code alone
//	bit 15      literal: bits 16-23 are the byte
//	bits 16-30  else, the base of the length or the distance
//	bit 14      special, which with
//	  bit 13    is a subtable: bits 0-7 are the bits of this table, bits 8-11 the
//	            bits of the subtable, bits 16-29 its start
//	  bit 12    is the end of the block
//	  neither   stands for nothing
//
// In a subtable the bits are those after the first table's.
const (
	bitsMask   = 0xff
	codeShift  = 8
	codeMask   = 0xf
	baseShift  = 16
	literal    = 1 << 15
	special    = 1 << 14
	subtable   = special | 1<<13
	endOfBlock = special | 1<<12
	perBit     = 1<<codeShift | 1 // a code that is a bit longer
)

const (
	litBits   = 11 // bits of the first table for literals and lengths
	distBits  = 8
	tableSize = 4096
	tableMask = tableSize - 1
	maxCode   = 15 // bits of the longest code (RFC 1951 section 3.2.7)
)

// A table has 1<<litBits or 1<<distBits entries, which the next bits of input index, and then the
// subtables for longer codes. With these sizes no complete code of 288 literals and lengths needs
// more than 2342 entries, and no code of 32 distances more than 402 (zlib's examples/enough.c).
type table [tableSize]uint32

// A code is the state of make while it fills a table.
type code struct {
	t      *table
	first  int // bits of the first table
	count  [maxCode + 1]int
	sorted [maxLit + 2]uint16 // symbols by length, then by value
}

// make fills t for the codes with the lengths lens (RFC 1951 section 3.2.2). Symbol i gets the
// entry base[i]. It returns the length of the shortest code, and whether compress/flate accepts the
// code: it must be complete, or empty, or a single code of one bit.
func (t *table) make(first int, lens []uint8, base []uint32) (uint64, bool) {
	c := code{t: t, first: first}
	for _, n := range lens {
		c.count[n]++
	}
	c.count[0] = 0
	shortest, used, next := 0, 0, [maxCode + 2]int{}
	for n := 1; n <= maxCode; n++ {
		if shortest == 0 && c.count[n] > 0 {
			shortest = n
		}
		used += c.count[n] << (maxCode - n)
		next[n+1] = next[n] + c.count[n]
	}
	if shortest == 0 {
		t.fill(first, special, special)
		return 0, true
	}
	single := next[maxCode+1] == 1 && shortest == 1
	if used != 1<<maxCode && !single {
		return 0, false
	}
	for i, n := range lens {
		if n != 0 {
			c.sorted[next[n]] = uint16(i)
			next[n]++
		}
	}
	if single {
		t.fill(first, base[c.sorted[0]]+perBit, special)
		return 1, true
	}
	c.make(shortest, base)
	return uint64(shortest), true
}

// fill sets the entries with an even index to zero, and those with an odd index to one.
func (t *table) fill(first int, zero, one uint32) {
	for i := 0; i < 1<<first; i += 2 {
		t[i], t[i+1] = zero, one
	}
}

// make fills the table for a complete code. While it handles codes of n bits, n <= first, the table
// has 1<<n entries. It is doubled for the next length.
func (c *code) make(n int, base []uint32) {
	word, i := 0, 0 // the code, its first bit lowest; the index in sorted
	for ; n <= c.first; n++ {
		size := 1 << n
		for range c.count[n] {
			c.t[word] = base[c.sorted[i]] + uint32(n*perBit)
			i++
			word = next(word, n)
		}
		if n < c.first {
			copy(c.t[size:2*size], c.t[:size])
		}
	}
	if i > 0 && word == 0 {
		return
	}
	c.makeLong(n, word, i, base)
}

// makeLong continues with the codes that are longer than first.
func (c *code) makeLong(n, word, i int, base []uint32) {
	start, end, prefix := 0, 1<<c.first, -1
	for ; n <= maxCode; n++ {
		for left := c.count[n]; left > 0; left-- {
			if word&(1<<c.first-1) != prefix {
				prefix = word & (1<<c.first - 1)
				size := n - c.first
				for space := left; space < 1<<size; {
					size++
					space = space<<1 + c.count[c.first+size]
				}
				start, end = end, end+1<<size
				c.t[prefix] = uint32(start<<baseShift | subtable | size<<codeShift | c.first)
			}
			e := base[c.sorted[i]] + uint32((n-c.first)*perBit)
			for j := start + word>>c.first; j < end; j += 1 << (n - c.first) {
				c.t[j] = e
			}
			i++
			word = next(word, n)
		}
	}
}

// next returns the code of n bits after word, or zero after the last one. Both have their first bit
// lowest. A code followed by zeros is the start of the first longer code.
func next(word, n int) int {
	free := word ^ (1<<n - 1)
	if free == 0 {
		return 0
	}
	bit := 1 << (bits.Len(uint(free)) - 1)
	return word&(bit-1) | bit
}
