package guest

import (
	"context"
	"encoding/binary"
	"time"

	"banger"
	"banger/internal/frame"
)

// RecordHeader is the length in bytes of what comes before the bytes in the payload of a frame that answers OpOutput:
// the position of the first byte, and the time in nanoseconds of the Unix epoch, both as big-endian integers of 64
// bits.
const RecordHeader = 16

// Record is a piece of what the main command has written.
type Record struct {
	Stream   frame.Type // frame.Stdout or frame.Stderr
	Position uint64     // how many bytes the main command wrote before, to both streams
	Time     time.Time  // by the guest's clock
	Data     []byte     // valid during the call that gets the record
}

// PutRecordHeader writes a record's position and time into the first RecordHeader bytes of b.
func PutRecordHeader(b []byte, position uint64, t time.Time) {
	binary.BigEndian.PutUint64(b, position)
	binary.BigEndian.PutUint64(b[8:], uint64(t.UnixNano()))
}

// PutTaken writes the payload of frame.Taken into b.
func PutTaken(b []byte, position uint64) []byte {
	return binary.BigEndian.AppendUint64(b[:0], position)
}

// Taken returns the position in the payload of frame.Taken.
func Taken(payload []byte) (position uint64, ok bool) {
	if len(payload) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(payload), true
}

// FirstOutput is a position for a host that does not know how far it was: the first byte that the agent has kept.
const FirstOutput = ^uint64(0)

// The client tells the agent after this many bytes or records how far it is. The agent keeps several times as much.
const (
	TakenBytes   = 64 << 10
	TakenRecords = 64
)

// Output calls take with what the main command writes, from the byte at position on, until the command's output has
// ended. It returns nil then. The agent keeps what take has not got, and the command waits when that is too much. After
// an error, a call with the position behind the last record that take got goes on without a gap.
func (c Client) Output(ctx context.Context, position uint64, take func(Record)) error {
	conn, err := c.send(ctx, Request{Op: OpOutput, Position: position})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	frames := frame.NewReader(conn)
	told, records := position, 0
	payload := make([]byte, 0, 8)
	for {
		t, p, err := frames.Next()
		if err != nil {
			return banger.Errorf(banger.CodeGuest, "the agent did not send all output: %w", err)
		}
		if t == frame.Error {
			return agentError(p)
		}
		if t != frame.Exit {
			if position == FirstOutput && len(p) >= RecordHeader {
				position = binary.BigEndian.Uint64(p)
				told = position
			}
			r, err := parseRecord(t, p, position)
			if err != nil {
				return err
			}
			take(r)
			position += uint64(len(r.Data))
			records++
		}
		if t == frame.Exit || position-told >= TakenBytes || records >= TakenRecords {
			err := frame.Write(conn, frame.Taken, PutTaken(payload, position))
			if t == frame.Exit {
				return nil // the agent may be gone already
			}
			if err != nil {
				return banger.Errorf(banger.CodeGuest, "the agent takes no answer: %w", err)
			}
			told, records = position, 0
		}
	}
}

// parseRecord returns the record of a frame. Its position must be the given one.
func parseRecord(t frame.Type, p []byte, position uint64) (Record, error) {
	if t != frame.Stdout && t != frame.Stderr {
		return Record{}, banger.Errorf(banger.CodeGuest, "the agent sent frame %d in the main command's output", t)
	}
	if len(p) <= RecordHeader || len(p) > RecordHeader+frame.MaxData {
		return Record{}, banger.Errorf(banger.CodeGuest, "the agent sent a record of %d bytes", len(p))
	}
	if at := binary.BigEndian.Uint64(p); at != position {
		return Record{}, banger.Errorf(banger.CodeGuest, "the agent sent output from byte %d on instead of %d", at, position)
	}
	return Record{t, position, time.Unix(0, int64(binary.BigEndian.Uint64(p[8:]))), p[RecordHeader:]}, nil
}
