package imagetest

import (
	"archive/tar"
	"bytes"
	"strconv"
)

// Header returns a tar that ends after the header of a file of the given size.
func Header(name string, size int64) []byte {
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&tar.Header{
		Name:   name,
		Size:   size,
		Mode:   0o644,
		Format: tar.FormatPAX,
	}); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// Holes returns a sparse entry (PAX format 1.0 of GNU tar) that consists of one hole.
func Holes(name string, size int64) []byte {
	sparseMap := make([]byte, 512)
	copy(sparseMap, "0\n")
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	realSize := strconv.FormatInt(size, 10)
	err := w.WriteHeader(
		&tar.Header{Name: name, Size: 512, Mode: 0o644, Format: tar.FormatPAX, PAXRecords: map[string]string{
			"xxx.sparse.major": "1", "xxx.sparse.minor": "0", "xxx.sparse.name": name, "xxx.sparse.realsize": realSize}})
	if err != nil {
		panic(err)
	}
	w.Write(sparseMap)
	w.Flush()
	// The library refuses to write these records, so they are renamed: the same
	// length keeps the PAX header valid.
	return bytes.ReplaceAll(buf.Bytes(), []byte("xxx.sparse"), []byte("GNU.sparse"))
}

// GlobalHeader returns a global pax header.
func GlobalHeader() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{
		Typeflag:   tar.TypeXGlobalHeader,
		PAXRecords: map[string]string{"comment": "of a commit"},
	}); err != nil {
		panic(err)
	}
	w.Flush()
	return b.Bytes()
}
