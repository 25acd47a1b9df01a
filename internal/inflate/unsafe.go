//go:build (amd64 || arm64) && !banger_noinflate

package inflate

import "unsafe"

// Loads and stores without bounds checks at byte i of the buffer that starts at p. Both
// architectures are little-endian and allow unaligned access. The caller must prove that all
// accessed bytes are inside the buffer.

func load64(p *byte, i uint64) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(p), i))
}

func store64(p *byte, i, v uint64) {
	*(*uint64)(unsafe.Add(unsafe.Pointer(p), i)) = v
}

func store8(p *byte, i uint64, v uint8) {
	*(*uint8)(unsafe.Add(unsafe.Pointer(p), i)) = v
}

// copy16 copies 16 bytes from from to to. It loads all of them before it stores any.
func copy16(p *byte, to, from uint64) {
	*(*[16]byte)(unsafe.Add(unsafe.Pointer(p), to)) = *(*[16]byte)(unsafe.Add(unsafe.Pointer(p), from))
}
