//go:build (amd64 || arm64) && !banger_noinflate

package inflate

const (
	maxLit  = 286 // literals and lengths that dynamic blocks can have (RFC 1951 section 3.2.7)
	maxDist = 30
)

// The extra bits of the lengths and distances (RFC 1951 section 3.2.5).
var (
	lengthExtra = [29]uint8{8: 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distExtra   = [maxDist]uint8{4: 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// The entries of all symbols, without the bits of the codes. The last two symbols of each have
// codes in fixed blocks but no meaning.
var litBase, distBase, lenBase = bases()

func bases() (lit [maxLit + 2]uint32, dist [maxDist + 2]uint32, lens [19]uint32) {
	for i := range 256 {
		lit[i] = uint32(literal | i<<baseShift)
	}
	lit[256] = endOfBlock
	base := 3
	for i, extra := range lengthExtra {
		lit[257+i] = uint32(base<<baseShift) | uint32(extra)
		base += 1 << extra
	}
	lit[285] = 258 << baseShift
	lit[286], lit[287] = special, special
	base = 1
	for i, extra := range distExtra {
		dist[i] = uint32(base<<baseShift) | uint32(extra)
		base += 1 << extra
	}
	dist[30], dist[31] = special, special
	for i := range lens {
		lens[i] = uint32(i << baseShift)
	}
	return
}

// codeOrder is the order of the lengths of the code length codes (RFC 1951 section 3.2.7).
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// useFixed prepares for a block with fixed codes (RFC 1951 section 3.2.6).
func (d *decoder) useFixed() {
	if d.fixed {
		return
	}
	var lens [maxLit + 2]uint8
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	d.litMin, _ = d.lit.make(litBits, lens[:], litBase[:])
	for i := range 32 {
		lens[i] = 5
	}
	d.dstMin, _ = d.dist.make(distBits, lens[:32], distBase[:])
	d.fixed = true
}

// readCodes reads the codes of a dynamic block (RFC 1951 section 3.2.7). It accepts what
// compress/flate accepts: a code must be complete, or empty, or have a single code of one bit; the
// end of the block need not have a code.
func (d *decoder) readCodes() error {
	d.fixed = false
	if err := d.need(14); err != nil {
		return err
	}
	lits, dists, codes := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if lits > maxLit || dists > maxDist {
		return d.corrupt("too many codes")
	}
	var lens [19]uint8
	for _, i := range codeOrder[:codes] {
		if err := d.need(3); err != nil {
			return err
		}
		lens[i] = uint8(d.take(3))
	}
	least, ok := d.lit.make(litBits, lens[:], lenBase[:])
	if !ok {
		return d.corrupt("invalid code length code")
	}
	all := d.lens[:lits+dists]
	if err := d.readLengths(all, least); err != nil {
		return err
	}
	d.litMin, ok = d.lit.make(litBits, all[:lits], litBase[:])
	if ok {
		d.dstMin, ok = d.dist.make(distBits, all[lits:], distBase[:])
	}
	if !ok {
		return d.corrupt("invalid code")
	}
	// No symbol is the last one of the block, so the code for the end of the block must follow.
	d.litMin = max(d.litMin, uint64(all[256]))
	return nil
}

// readLengths reads the lengths of the codes. d.lit has the code length codes, which have at least
// least bits.
func (d *decoder) readLengths(lens []uint8, least uint64) error {
	for i := 0; i < len(lens); {
		e, err := d.symbol(&d.lit, litBits, least)
		if err != nil {
			return err
		}
		sym := uint8(e >> baseShift)
		if sym < 16 {
			lens[i] = sym
			i++
			continue
		}
		var value uint8
		repeat, extra := 3, uint64(2)
		switch sym {
		case 16:
			if i == 0 {
				return d.corrupt("nothing to repeat")
			}
			value = lens[i-1]
		case 17:
			extra = 3
		case 18:
			repeat, extra = 11, 7
		}
		if err := d.need(extra); err != nil {
			return err
		}
		repeat += int(d.take(extra))
		if i+repeat > len(lens) {
			return d.corrupt("too many code lengths")
		}
		for range repeat {
			lens[i] = value
			i++
		}
	}
	return nil
}
