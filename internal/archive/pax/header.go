package pax

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types of entries (POSIX ustar; pax; GNU tar).
const (
	KindFile     = '0'
	KindLink     = '1'
	KindSymlink  = '2'
	KindChar     = '3'
	KindBlock    = '4'
	KindDir      = '5'
	KindFifo     = '6'
	kindPAX      = 'x'
	kindGlobal   = 'g'
	kindLongName = 'L' // GNU tar: the name of the next entry
	kindLongLink = 'K' // GNU tar: its link target
)

// Header is the header of one entry.
type Header struct {
	Kind         byte   // one of the constants above
	Name, Target string // Target is that of a link
	Mode         uint32 // permissions with setuid, setgid and sticky
	UID, GID     uint32
	Mtime        time.Time
	Size         int64  // of the data that follows, in bytes
	Major, Minor uint32 // of a device
	Xattrs       map[string]string
	Links        int // number of names of a file; 0 if the archive does not say

	Sparse   bool  // the data is a map and the pieces in the map
	RealSize int64 // of a sparse file, in bytes
}

// Encode returns the entry's blocks: pax records for what does not fit the old header, then the header.
func (h *Header) Encode() ([]byte, error) {
	records := map[string]string{}
	for name, value := range h.Xattrs {
		records[xattrRecord+name] = value
	}
	if h.Links > 0 {
		records["comment"] = linksComment + strconv.Itoa(h.Links)
	}
	short := h.Name
	if h.Sparse {
		// GNU tar manual, "Storing Sparse Files", PAX format, version 1.0.
		records[sparseRecord+"major"], records[sparseRecord+"minor"] = "1", "0"
		records[sparseRecord+"name"] = h.Name
		records[sparseRecord+"realsize"] = strconv.FormatInt(h.RealSize, 10)
		short = "GNUSparseFile.0/" + h.Name[strings.LastIndexByte(h.Name, '/')+1:]
	} else if !fits(short) {
		records["path"] = h.Name
	}
	if !fits(h.Target) {
		records["linkpath"] = h.Target
	}
	if h.Size > 1<<33-1 {
		records["size"] = strconv.FormatInt(h.Size, 10)
	}
	if h.UID > 1<<21-1 {
		records["uid"] = strconv.FormatUint(uint64(h.UID), 10)
	}
	if h.GID > 1<<21-1 {
		records["gid"] = strconv.FormatUint(uint64(h.GID), 10)
	}
	if s := h.Mtime.Unix(); h.Mtime.Nanosecond() != 0 || s < 0 || s > 1<<33-1 {
		records["mtime"] = paxTime(h.Mtime)
	}
	var out []byte
	if len(records) > 0 {
		body := encodeRecords(records)
		if len(body) > maxPAX {
			return nil, Refuse(h.Name, "has more attributes than a tar takes")
		}
		out = append(out, block(&Header{Kind: kindPAX, Mode: 0o644, Size: int64(len(body))}, "PaxHeaders/file")...)
		out = append(out, body...)
		out = append(out, make([]byte, -len(body)&(BlockSize-1))...)
	}
	return append(out, block(h, short)...), nil
}

// fits reports whether the old header can hold a name.
func fits(name string) bool {
	return len(name) <= 100 && !strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 })
}

// encodeRecords returns records as "LENGTH KEY=VALUE\n". The length includes itself.
func encodeRecords(records map[string]string) []byte {
	var out []byte
	for _, key := range slices.Sorted(maps.Keys(records)) {
		rest := len(key) + len(records[key]) + 3
		n := rest + len(strconv.Itoa(rest))
		n = rest + len(strconv.Itoa(n))
		out = fmt.Appendf(out, "%d %s=%s\n", n, key, records[key])
	}
	return out
}

// paxTime formats seconds and their fraction. For a time before 1970 both are negative.
func paxTime(t time.Time) string {
	s, ns, sign := t.Unix(), int64(t.Nanosecond()), ""
	if s < 0 && ns > 0 {
		s, ns = s+1, 1e9-ns
	}
	if s < 0 || t.Unix() < 0 {
		s, sign = -s, "-"
	}
	if ns == 0 {
		return sign + strconv.FormatInt(s, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, s, ns), "0")
}

// block returns a ustar header (POSIX, pax(1), "ustar Interchange Format").
func block(h *Header, name string) []byte {
	b := make([]byte, BlockSize)
	octal := func(field []byte, v int64) { // what does not fit is in a pax record
		digits := len(field) - 1
		copy(field, fmt.Sprintf("%0*o", digits, uint64(v)&(1<<(3*digits)-1)))
	}
	copy(b[0:100], name)
	octal(b[100:108], int64(h.Mode))
	octal(b[108:116], int64(h.UID))
	octal(b[116:124], int64(h.GID))
	octal(b[124:136], h.Size)
	octal(b[136:148], max(h.Mtime.Unix(), 0))
	b[156] = h.Kind
	copy(b[157:257], h.Target)
	copy(b[257:265], "ustar\x0000")
	octal(b[329:337], int64(h.Major))
	octal(b[337:345], int64(h.Minor))
	unsigned, _ := checksums(b)
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", unsigned))
	return b
}

// checksums returns the sums of a header's bytes, with spaces in place of the checksum. Old programs used signed
// bytes.
func checksums(b []byte) (unsigned, signed int64) {
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return unsigned, signed
}
