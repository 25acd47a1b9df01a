package pax

import (
	"strconv"
)

// Piece is a part of a file that holds data, in bytes.
type Piece struct{ Offset, Length int64 }

// EncodeMap returns the map before a sparse file's data: the number of pieces, and the offset and length of each,
// in decimal, one per line, padded to a block (GNU tar manual, "Storing Sparse Files", PAX format, version 1.0). A
// hole at the end is an empty piece at the file's size.
func EncodeMap(pieces []Piece, size int64) []byte {
	if n := len(pieces); n == 0 || pieces[n-1].Offset+pieces[n-1].Length < size {
		pieces = append(pieces[:n:n], Piece{size, 0})
	}
	b := append(strconv.AppendInt(nil, int64(len(pieces)), 10), '\n')
	for _, p := range pieces {
		b = append(strconv.AppendInt(b, p.Offset, 10), '\n')
		b = append(strconv.AppendInt(b, p.Length, 10), '\n')
	}
	return append(b, make([]byte, -len(b)&(BlockSize-1))...)
}

// checkPieces returns an error unless the pieces are in order, within the file, and as long as the existing data.
func checkPieces(name string, pieces []Piece, size, data int64) error {
	end := int64(0)
	for _, p := range pieces {
		if p.Offset < end || p.Length < 0 || p.Length > size-p.Offset || p.Length > data {
			return Refuse(name, "has a map of holes that contradicts itself")
		}
		end = p.Offset + p.Length
		data -= p.Length
	}
	if data != 0 {
		return Refuse(name, "has more data than its map of holes names")
	}
	return nil
}
