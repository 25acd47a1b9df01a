package frame

import (
	"encoding/binary"
	"time"
)

// StampSize is the length in bytes of the payload of Stamp: the position of the first byte of the data that follows,
// and its time in nanoseconds of the Unix epoch, both as big-endian integers of 64 bits.
const StampSize = 16

// AppendStamp appends a whole frame of type Stamp to b.
func AppendStamp(b []byte, position uint64, at time.Time) []byte {
	b = append(b, byte(Stamp), 0, 0, 0, 0, 0, 0, StampSize)
	b = binary.BigEndian.AppendUint64(b, position)
	return binary.BigEndian.AppendUint64(b, uint64(at.UnixNano()))
}

// ParseStamp returns what the payload of a Stamp says.
func ParseStamp(payload []byte) (position uint64, at time.Time, ok bool) {
	if len(payload) != StampSize {
		return 0, time.Time{}, false
	}
	return binary.BigEndian.Uint64(payload), time.Unix(0, int64(binary.BigEndian.Uint64(payload[8:]))), true
}
