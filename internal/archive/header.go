package archive

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
	typeFile     = '0'
	typeLink     = '1'
	typeSymlink  = '2'
	typeChar     = '3'
	typeBlock    = '4'
	typeDir      = '5'
	typeFifo     = '6'
	typePAX      = 'x'
	typeGlobal   = 'g'
	typeLongName = 'L' // GNU tar: the name of the next entry
	typeLongLink = 'K' // GNU tar: its link target
)

// header is the header of one entry.
type header struct {
	kind         byte
	name, target string
	mode         uint32 // permissions with setuid, setgid and sticky
	uid, gid     uint32
	mtime        time.Time
	size         int64 // of the data that follows
	major, minor uint32
	xattrs       map[string]string
	links        int // number of names of a file; 0 if the archive does not say

	sparse   bool // the data is a map and the pieces in the map
	realSize int64
}

// encode returns the entry's blocks: pax records for what does not fit the old header, then the header.
func (h *header) encode() ([]byte, error) {
	records := map[string]string{}
	for name, value := range h.xattrs {
		records[xattrRecord+name] = value
	}
	if h.links > 0 {
		records["comment"] = linksComment + strconv.Itoa(h.links)
	}
	short := h.name
	if h.sparse {
		// GNU tar manual, "Storing Sparse Files", PAX format, version 1.0.
		records[sparseRecord+"major"], records[sparseRecord+"minor"] = "1", "0"
		records[sparseRecord+"name"] = h.name
		records[sparseRecord+"realsize"] = strconv.FormatInt(h.realSize, 10)
		short = "GNUSparseFile.0/" + h.name[strings.LastIndexByte(h.name, '/')+1:]
	} else if !fits(short) {
		records["path"] = h.name
	}
	if !fits(h.target) {
		records["linkpath"] = h.target
	}
	if h.size > 1<<33-1 {
		records["size"] = strconv.FormatInt(h.size, 10)
	}
	if h.uid > 1<<21-1 {
		records["uid"] = strconv.FormatUint(uint64(h.uid), 10)
	}
	if h.gid > 1<<21-1 {
		records["gid"] = strconv.FormatUint(uint64(h.gid), 10)
	}
	if s := h.mtime.Unix(); h.mtime.Nanosecond() != 0 || s < 0 || s > 1<<33-1 {
		records["mtime"] = paxTime(h.mtime)
	}
	var out []byte
	if len(records) > 0 {
		body := encodeRecords(records)
		if len(body) > maxPAX {
			return nil, refuse(h.name, "has more attributes than a tar takes")
		}
		out = append(out, block(&header{kind: typePAX, mode: 0o644, size: int64(len(body))}, "PaxHeaders/file")...)
		out = append(out, body...)
		out = append(out, make([]byte, -len(body)&(blockSize-1))...)
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
func block(h *header, name string) []byte {
	b := make([]byte, blockSize)
	octal := func(field []byte, v int64) { // what does not fit is in a pax record
		digits := len(field) - 1
		copy(field, fmt.Sprintf("%0*o", digits, uint64(v)&(1<<(3*digits)-1)))
	}
	copy(b[0:100], name)
	octal(b[100:108], int64(h.mode))
	octal(b[108:116], int64(h.uid))
	octal(b[116:124], int64(h.gid))
	octal(b[124:136], h.size)
	octal(b[136:148], max(h.mtime.Unix(), 0))
	b[156] = h.kind
	copy(b[157:257], h.target)
	copy(b[257:265], "ustar\x0000")
	octal(b[329:337], int64(h.major))
	octal(b[337:345], int64(h.minor))
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
