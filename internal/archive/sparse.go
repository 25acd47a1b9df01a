package archive

import (
	"errors"
	"io"
	"strconv"

	"golang.org/x/sys/unix"

	"banger/internal/sparse"
)

// piece is a part of a file that holds data.
type piece struct{ offset, length int64 }

// maxPieces is the largest number of pieces of a file that is archived. If it has more, the smallest holes between
// them are sent as zeros.
const maxPieces = 4096

// findPieces asks the file system where the file fd of the given size has data. It returns false if no hole is
// worth a map.
func findPieces(fd int, size int64) ([]piece, bool, error) {
	var pieces []piece
	least := int64(blockSize) // size of the smallest hole that counts
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
		if n := len(pieces); n > 0 && data-(pieces[n-1].offset+pieces[n-1].length) < least {
			pieces[n-1].length = end - pieces[n-1].offset
			continue
		}
		pieces = append(pieces, piece{data, end - data})
		for len(pieces) > maxPieces {
			least *= 2
			pieces = joinPieces(pieces, least)
		}
	}
	whole := len(pieces) == 1 && pieces[0] == piece{0, size}
	return pieces, !whole, nil
}

// joinPieces joins pieces with less than least bytes between them.
func joinPieces(pieces []piece, least int64) []piece {
	out := pieces[:1]
	for _, p := range pieces[1:] {
		last := &out[len(out)-1]
		if p.offset-(last.offset+last.length) < least {
			last.length = p.offset + p.length - last.offset
		} else {
			out = append(out, p)
		}
	}
	return out
}

// encodeMap returns the map before a sparse file's data: the number of pieces, and the offset and length of each,
// in decimal, one per line, padded to a block (GNU tar manual, "Storing Sparse Files", PAX format, version 1.0). A
// hole at the end is an empty piece at the file's size.
func encodeMap(pieces []piece, size int64) []byte {
	if n := len(pieces); n == 0 || pieces[n-1].offset+pieces[n-1].length < size {
		pieces = append(pieces[:n:n], piece{size, 0})
	}
	b := append(strconv.AppendInt(nil, int64(len(pieces)), 10), '\n')
	for _, p := range pieces {
		b = append(strconv.AppendInt(b, p.offset, 10), '\n')
		b = append(strconv.AppendInt(b, p.length, 10), '\n')
	}
	return append(b, make([]byte, -len(b)&(blockSize-1))...)
}

// checkPieces returns an error unless the pieces are in order, within the file, and as long as the existing data.
func checkPieces(name string, pieces []piece, size, data int64) error {
	end := int64(0)
	for _, p := range pieces {
		if p.offset < end || p.length < 0 || p.length > size-p.offset || p.length > data {
			return refuse(name, "has a map of holes that contradicts itself")
		}
		end = p.offset + p.length
		data -= p.length
	}
	if data != 0 {
		return refuse(name, "has more data than its map of holes names")
	}
	return nil
}
