//go:build (amd64 || arm64) && !banger_noinflate

package inflate

// fastInput is how many bytes of input must be left for a step of fast. A step fills bb at most
// twice; each filling looks at 8 bytes and takes up to 7. The first step needs 8 more at the
// beginning.
const fastInput = 24

// fast decodes symbols of a block while there is enough input and room in the run. It reports
// whether the block is at its end. It is one long loop because its variables must stay in
// registers.
//
// Filling: bb gets the 8 bytes at in. Those that fit as a whole are counted; bb then has 56 to 63
// bits. The upper bits of nb are left over from subtracted entries, and only nb&63 counts. After a
// filling, a step uses at most 48 bits: those of a length (20) and a distance (28), or those of
// three literals in the first table (33) and of the look-up after them (15).
//
// Storing: at the start of a step out < stop. Three literals and a match of 258 bytes may follow,
// and a copy goes at most 15 bytes too far. That is 276 of the slack's 512 bytes.
func (d *decoder) fast() (bool, error) {
	lit, dist, src, dst := &d.lit, &d.dist, &d.buf[0], &d.out[0]
	in, out, low := uint64(d.pos), uint64(d.wp), uint64(d.low)
	inMax, stop := uint64(d.end-fastInput), uint64(d.stop)
	bb, nb := d.bb, d.nb
	bad, done := "", false
	bb |= load64(src, in) << (nb & 63)
	in += 7 - nb>>3&7
	nb |= 56
	e := uint64(lit[bb&(1<<litBits-1)])
	for in <= inMax && out < stop {
		if e&literal != 0 {
			store8(dst, out, uint8(e>>baseShift))
			out++
			bb >>= e & 63
			nb -= e
			e = uint64(lit[bb&(1<<litBits-1)])
			if e&literal != 0 {
				store8(dst, out, uint8(e>>baseShift))
				out++
				bb >>= e & 63
				nb -= e
				e = uint64(lit[bb&(1<<litBits-1)])
				if e&literal != 0 {
					store8(dst, out, uint8(e>>baseShift))
					out++
					bb >>= e & 63
					nb -= e
					e = uint64(lit[bb&(1<<litBits-1)])
					if e&literal != 0 {
						store8(dst, out, uint8(e>>baseShift))
						out++
						bb >>= e & 63
						nb -= e
						bb |= load64(src, in) << (nb & 63)
						in += 7 - nb>>3&7
						nb |= 56
						e = uint64(lit[bb&(1<<litBits-1)])
						continue
					}
				}
			}
			bb |= load64(src, in) << (nb & 63)
			in += 7 - nb>>3&7
			nb |= 56
		}
		if e&special != 0 {
			if e&subtable == subtable {
				bb >>= litBits
				nb -= litBits
				e = uint64(lit[(e>>baseShift+bb&(1<<(e>>codeShift&codeMask)-1))&tableMask])
				if e&literal != 0 {
					store8(dst, out, uint8(e>>baseShift))
					out++
					bb >>= e & 63
					nb -= e
					bb |= load64(src, in) << (nb & 63)
					in += 7 - nb>>3&7
					nb |= 56
					e = uint64(lit[bb&(1<<litBits-1)])
					continue
				}
			}
			if e&special != 0 {
				if e&endOfBlock == endOfBlock {
					bb >>= e & 63
					nb -= e
					done = true
				} else {
					bad = "invalid literal or length"
				}
				break
			}
		}
		length := e>>baseShift + bb&(1<<(e&63)-1)>>(e>>codeShift&63)
		bb >>= e & 63
		nb -= e
		e = uint64(dist[bb&(1<<distBits-1)])
		if e&special != 0 {
			if e&subtable != subtable {
				bad = "invalid distance code"
				break
			}
			bb >>= distBits
			nb -= distBits
			e = uint64(dist[(e>>baseShift+bb&(1<<(e>>codeShift&codeMask)-1))&tableMask])
		}
		distance := e>>baseShift + bb&(1<<(e&63)-1)>>(e>>codeShift&63)
		bb >>= e & 63
		nb -= e
		if distance > out-low {
			bad = "distance too far back"
			break
		}
		bb |= load64(src, in) << (nb & 63)
		in += 7 - nb>>3&7
		nb |= 56
		e = uint64(lit[bb&(1<<litBits-1)])
		from, end := out-distance, out+length
		if distance >= 16 {
			copy16(dst, out, from)
			for out += 16; out < end; out += 16 {
				from += 16
				copy16(dst, out, from)
			}
		} else if distance == 1 {
			v := load64(dst, from) & 0xff * 0x0101010101010101
			for ; out < end; out += 8 {
				store64(dst, out, v)
			}
		} else if distance >= 8 {
			for ; out < end; out += 8 {
				store64(dst, out, load64(dst, from))
				from += 8
			}
		} else {
			v := load64(dst, from)
			for ; out < end; out += distance {
				store64(dst, out, v)
			}
		}
		out = end
	}
	nb &= 63
	back := min(nb>>3, in-uint64(d.pos))
	nb -= back * 8
	d.bb, d.nb = bb&(1<<nb-1), nb
	d.pos, d.wp = int(in-back), int(out)
	if bad != "" {
		return false, d.corrupt(bad)
	}
	return done, nil
}
