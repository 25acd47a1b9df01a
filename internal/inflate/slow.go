//go:build (amd64 || arm64) && !banger_noinflate

package inflate

// slow decodes one literal, or one length with its distance, or the end of the block, and reports
// whether it was the end. It takes no byte of input before it needs it. So it works up to the end
// of the input, and fails there exactly as compress/flate does.
func (d *decoder) slow() (bool, error) {
	e, err := d.symbol(&d.lit, litBits, d.litMin)
	if err != nil {
		return false, err
	}
	switch {
	case e&literal != 0:
		d.out[d.wp] = byte(e >> baseShift)
		d.wp++
		return false, nil
	case e&endOfBlock == endOfBlock:
		return true, nil
	case e&special != 0:
		return false, d.corrupt("invalid literal or length")
	}
	length, err := d.value(e)
	if err != nil {
		return false, err
	}
	if e, err = d.symbol(&d.dist, distBits, d.dstMin); err != nil {
		return false, err
	}
	if e&special != 0 {
		return false, d.corrupt("invalid distance code")
	}
	distance, err := d.value(e)
	if err != nil {
		return false, err
	}
	if distance > d.wp-d.low {
		return false, d.corrupt("distance too far back")
	}
	for range length {
		d.out[d.wp] = d.out[d.wp-distance]
		d.wp++
	}
	return false, nil
}

// symbol uses the bits of the next code of t and returns its entry. The first table of t has bits
// bits, and the codes have at least least bits. Missing bits count as zero in the look-ups. That
// never finds a code that is longer than the real one, because shorter codes precede longer ones.
func (d *decoder) symbol(t *table, bits, least uint64) (uint32, error) {
	for n := least; ; n = d.nb + 1 {
		if err := d.need(n); err != nil {
			return 0, err
		}
		e := t[d.bb&(1<<bits-1)]
		n := uint64(e >> codeShift & codeMask)
		if e&subtable == subtable {
			e = t[uint64(e>>baseShift)+d.bb>>bits&(1<<n-1)]
			n = bits + uint64(e>>codeShift&codeMask)
		}
		if n == 0 {
			return 0, d.corrupt("a code that stands for nothing")
		}
		if n <= d.nb {
			d.take(n)
			return e, nil
		}
	}
}

// value returns the base in e plus the extra bits (RFC 1951 section 3.2.5).
func (d *decoder) value(e uint32) (int, error) {
	n := uint64(e&bitsMask - e>>codeShift&codeMask)
	if err := d.need(n); err != nil {
		return 0, err
	}
	return int(uint64(e>>baseShift) + d.take(n)), nil
}
