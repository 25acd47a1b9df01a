//go:build (amd64 || arm64) && !banger_noinflate

package inflate

import "io"

// The window has three parts: the last histSize bytes of the previous run, then the run, then the
// slack. The slack receives the last symbol of a run and the overrun of its copy.
const (
	histSize  = 32 << 10 // longest distance (RFC 1951 section 2)
	runSize   = 256 << 10
	slackSize = 512
)

// What comes next in the DEFLATE stream.
const (
	atBlock = iota
	inStored
	inCodes
	atEnd
)

// A decoder decodes DEFLATE streams from its source into its window.
type decoder struct {
	source
	bb     uint64 // bits that were taken from the source and not used; the next one is the lowest
	nb     uint64 // number of bits in bb; the bits above it are zero
	state  int
	last   bool // this block is the last one
	stored int  // remaining bytes of a stored block
	litMin uint64
	dstMin uint64

	out  []byte // the window
	wp   int    // bytes before wp are decoded
	low  int    // distances must not reach before low
	stop int    // a run ends when wp reaches it; slackSize bytes follow it

	lit   table
	dist  table
	fixed bool // lit and dist are the tables of fixed blocks
	lens  [maxLit + maxDist]uint8
}

func newDecoder() *decoder {
	return &decoder{
		source: source{buf: make([]byte, inSize)},
		out:    make([]byte, histSize+runSize+slackSize),
	}
}

// reset prepares the decoder for the input r.
func (d *decoder) reset(r io.Reader) {
	d.source.reset(r)
	d.wp = 0
	d.stop = len(d.out) - slackSize
}

// begin prepares for a new stream at the next byte of the source.
func (d *decoder) begin() {
	d.bb, d.nb = 0, 0
	d.state, d.last = atBlock, false
	d.low = d.wp
}

// slide moves the history to the start of the window and returns where the next run starts.
func (d *decoder) slide() int {
	if drop := d.wp - histSize; drop > 0 {
		copy(d.out, d.out[drop:d.wp])
		d.wp = histSize
		d.low = max(0, d.low-drop)
	}
	return d.wp
}

// full reports whether the run is at its end.
func (d *decoder) full() bool { return d.wp >= d.stop }

// inflate decodes until the run is full or the stream ends. It reports whether the stream has
// ended. Output before an error is in the window.
func (d *decoder) inflate() (bool, error) {
	for !d.full() {
		var err error
		switch d.state {
		case atBlock:
			err = d.block()
		case inStored:
			err = d.copyStored()
		case inCodes:
			err = d.codes()
		case atEnd:
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// block reads the header of a block (RFC 1951 section 3.2.3).
func (d *decoder) block() error {
	if err := d.need(3); err != nil {
		return err
	}
	v := d.take(3)
	d.last = v&1 == 1
	switch v >> 1 {
	case 0:
		return d.startStored()
	case 1:
		d.state = inCodes
		d.useFixed()
		return nil
	case 2:
		d.state = inCodes
		return d.readCodes()
	}
	return d.corrupt("reserved type of block")
}

// endBlock ends a block.
func (d *decoder) endBlock() {
	d.state = atBlock
	if d.last {
		d.state = atEnd
	}
}

// startStored reads the header of a stored block (RFC 1951 section 3.2.4). At the end of a block
// header bb has fewer than 8 bits, because need takes no byte before its bits are needed.
func (d *decoder) startStored() error {
	d.bb, d.nb = 0, 0
	var h [4]byte
	if err := d.source.full(h[:]); err != nil {
		return err
	}
	n := int(h[0]) | int(h[1])<<8
	if n != int(^h[2])&0xff|int(^h[3])&0xff<<8 {
		return d.corrupt("length of a stored block differs from its complement")
	}
	d.state, d.stored = inStored, n
	return nil
}

// copyStored copies the bytes of a stored block that the source has.
func (d *decoder) copyStored() error {
	if d.stored == 0 {
		d.endBlock()
		return nil
	}
	n, err := d.source.Read(d.out[d.wp:min(d.wp+d.stored, d.stop)])
	d.wp += n
	d.stored -= n
	return noEOF(err)
}

// codes decodes the symbols of a block (RFC 1951 section 3.2.3) until the block or the run ends.
func (d *decoder) codes() error {
	for !d.full() {
		done, err := false, error(nil)
		if d.end-d.pos >= fastInput+8 {
			done, err = d.fast()
		} else {
			done, err = d.slow()
		}
		if err != nil {
			return err
		}
		if done {
			d.endBlock()
			return nil
		}
	}
	return nil
}

// need fills bb up to at least n bits, n <= 56. It takes no more bytes than that requires.
func (d *decoder) need(n uint64) error {
	for d.nb < n {
		b, err := d.ReadByte()
		if err != nil {
			return noEOF(err)
		}
		d.bb |= uint64(b) << d.nb
		d.nb += 8
	}
	return nil
}

// take uses n bits. The caller must have called need for them.
func (d *decoder) take(n uint64) uint64 {
	v := d.bb & (1<<n - 1)
	d.bb >>= n
	d.nb -= n
	return v
}
