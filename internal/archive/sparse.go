package archive

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"banger/internal/archive/pax"
	"banger/internal/sparse"
)

// maxPieces is the largest number of pieces of a file that is archived. If it has more, the smallest holes between
// them are sent as zeros.
const maxPieces = 4096

// findPieces asks the file system where the file fd of the given size has data. It returns false if no hole is
// worth a map.
func findPieces(fd int, size int64) ([]pax.Piece, bool, error) {
	var pieces []pax.Piece
	least := int64(pax.BlockSize) // size of the smallest hole that counts
	for at := int64(0); at < size; {
		data, end, err := sparse.Next(fd, at, size)
		if err == io.EOF { // only a hole follows
			break
		}
		if errors.Is(err, unix.EINVAL) && at == 0 { // the file system does not support this
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		at = end
		if n := len(pieces); n > 0 && data-(pieces[n-1].Offset+pieces[n-1].Length) < least {
			pieces[n-1].Length = end - pieces[n-1].Offset
			continue
		}
		pieces = append(pieces, pax.Piece{Offset: data, Length: end - data})
		for len(pieces) > maxPieces {
			least *= 2
			pieces = joinPieces(pieces, least)
		}
	}
	whole := len(pieces) == 1 && pieces[0] == (pax.Piece{Length: size})
	return pieces, !whole, nil
}

// joinPieces joins pieces with less than least bytes between them.
func joinPieces(pieces []pax.Piece, least int64) []pax.Piece {
	out := pieces[:1]
	for _, p := range pieces[1:] {
		last := &out[len(out)-1]
		if p.Offset-(last.Offset+last.Length) < least {
			last.Length = p.Offset + p.Length - last.Offset
		} else {
			out = append(out, p)
		}
	}
	return out
}
