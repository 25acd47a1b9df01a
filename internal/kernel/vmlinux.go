package kernel

import (
	"bytes"
	"compress/bzip2"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxVmlinux is the largest size of an unpacked kernel, in bytes.
const maxVmlinux = 512 << 20

// extractVmlinux writes the ELF image inside a bzImage to dst, or the file itself if it is an ELF
// image. Decompression once on the host saves about a second at each emulated boot. The layout is
// in Documentation/arch/x86/boot.rst.
func extractVmlinux(src, dst string) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		if data, err = unpackBzImage(data); err != nil {
			return err
		}
	}
	if _, err := elf.NewFile(bytes.NewReader(data)); err != nil {
		return fmt.Errorf("no ELF kernel inside: %w", err)
	}
	return os.WriteFile(dst, data, 0o644)
}

func unpackBzImage(data []byte) ([]byte, error) {
	const magicAt, setupSectsAt, payloadAt = 0x202, 0x1f1, 0x248
	if len(data) < payloadAt+8 || string(data[magicAt:magicAt+4]) != "HdrS" {
		return nil, errors.New("neither ELF nor bzImage")
	}
	sects := int(data[setupSectsAt])
	if sects == 0 {
		sects = 4 // boot.rst: 0 means 4
	}
	start := uint64((sects+1)*512) + uint64(binary.LittleEndian.Uint32(data[payloadAt:]))
	length := uint64(binary.LittleEndian.Uint32(data[payloadAt+4:]))
	if length < 8 || start+length > uint64(len(data)) {
		return nil, errors.New("the payload lies outside the file")
	}
	payload := data[start : start+length]
	// All formats except gzip store the unpacked size in four trailing bytes.
	size := binary.LittleEndian.Uint32(payload[len(payload)-4:])
	if size > maxVmlinux {
		return nil, fmt.Errorf("claims to unpack to %d bytes", size)
	}
	r, err := decompressor(payload)
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(make([]byte, 0, size))
	_, err = io.Copy(out, io.LimitReader(r, int64(size)))
	if uint32(out.Len()) != size {
		return nil, fmt.Errorf("unpacked to %d bytes instead of %d: %w", out.Len(), size, err)
	}
	return out.Bytes(), nil // an error after the last byte comes from the trailing size, which is not data
}

// decompressor recognises the payload by its magic number, as scripts/extract-vmlinux does.
func decompressor(p []byte) (io.Reader, error) {
	body := p[:len(p)-4]
	switch {
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		return gzip.NewReader(bytes.NewReader(p))
	case bytes.HasPrefix(p, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xz.NewReader(bytes.NewReader(body))
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d, err := zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxVmlinux))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bytes.HasPrefix(p, []byte{0x02, 0x21, 0x4c, 0x18}):
		return lz4.NewReader(bytes.NewReader(body)), nil
	case bytes.HasPrefix(p, []byte("BZh")):
		return bzip2.NewReader(bytes.NewReader(body)), nil
	case bytes.HasPrefix(p, []byte{0x5d, 0, 0}):
		return lzma.NewReader(bytes.NewReader(body))
	}
	return nil, fmt.Errorf("unknown compression (starts with % x)", p[:4])
}
