package archive

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"

	"banger"
)

// reader reads the entries of a hostile tar: ustar, pax, and GNU tar's long names
// and sparse format 1.0.
type reader struct {
	in   *input
	left int64 // unread bytes of the entry
	pad  int64 // zeros after them
}

// overrides are values from records that replace those of the next header.
type overrides struct {
	records    map[string]string
	name, link string
}

// next returns the next entry. io.EOF means that the tar has ended properly.
func (r *reader) next() (*header, error) {
	var over overrides
	for entry := 0; ; entry++ {
		if err := r.in.pass(r.left+r.pad, drop); err != nil {
			return nil, cutShort(err)
		}
		r.left, r.pad = 0, 0
		var b [blockSize]byte
		if err := r.in.full(b[:]); err != nil {
			return nil, cutShort(err)
		}
		if b == [blockSize]byte{} {
			if entry > 0 {
				return nil, damaged("it ends between an entry's records and the entry")
			}
			return nil, io.EOF
		}
		h, err := decodeBlock(b[:])
		if err != nil {
			return nil, err
		}
		done, err := r.records(h, &over)
		if err != nil {
			return nil, err
		}
		if done {
			return h, r.complete(h, over)
		}
		if entry > 8 {
			return nil, damaged("too many records stand before one entry")
		}
	}
}

// records handles a record that describes the next entry. It returns true if h is an entry itself.
func (r *reader) records(h *header, over *overrides) (done bool, err error) {
	switch h.kind {
	case typePAX, typeGlobal, typeLongName, typeLongLink:
	default:
		return true, nil
	}
	if h.size > maxPAX {
		return false, damaged("records of an entry have %d bytes, over the limit of %d", h.size, maxPAX)
	}
	body := make([]byte, h.size)
	if err := r.in.full(body); err != nil {
		return false, cutShort(err)
	}
	r.pad = -h.size & (blockSize - 1)
	switch h.kind {
	case typeLongName:
		over.name = cString(body)
	case typeLongLink:
		over.link = cString(body)
	case typePAX:
		over.records, err = decodeRecords(body)
	case typeGlobal:
		var global map[string]string
		global, err = decodeRecords(body)
		for key := range global {
			if key != "comment" {
				return false, damaged("it has a record %.40q for all entries, which is not supported", key)
			}
		}
	}
	return false, err
}

// complete applies the records and checks the rules for all entries.
func (r *reader) complete(h *header, over overrides) error {
	if over.name != "" {
		h.name = over.name
	}
	if over.link != "" {
		h.target = over.link
	}
	if err := h.apply(over.records); err != nil {
		return err
	}
	if h.kind == 0 || h.kind == '7' {
		h.kind = typeFile
	}
	if h.kind == typeFile && strings.HasSuffix(h.name, "/") {
		h.kind = typeDir
	}
	switch {
	case h.kind == 'S' || h.sparse && h.kind != typeFile:
		return refuse(h.name, "is in an old format of files with holes").WithHint("make the archive with tar --format=posix")
	case h.kind < typeFile || h.kind > typeFifo:
		return refuse(h.name, "is of the unknown type %q", h.kind)
	case len(h.name) > maxName || len(h.target) > maxName:
		return refuse(h.name, "has a name of more than %d bytes", maxName)
	case strings.ContainsRune(h.name, 0) || strings.ContainsRune(h.target, 0):
		return refuse(h.name, "has a NUL in its name")
	}
	if h.kind != typeFile {
		h.size = 0 // some programs write the size of a link's target
	}
	r.left, r.pad = h.size, -h.size&(blockSize-1)
	return nil
}

// pieces returns the pieces of a file that have data. The rest are holes.
func (r *reader) pieces(h *header) ([]piece, error) {
	if !h.sparse {
		return []piece{{0, h.size}}, nil
	}
	m := mapReader{r: r, name: h.name}
	n := m.number()
	if m.err == nil && n > maxSparse {
		return nil, refuse(h.name, "consists of %d pieces, over the limit of %d", n, maxSparse)
	}
	var pieces []piece
	for i := int64(0); i < n && m.err == nil; i++ {
		pieces = append(pieces, piece{m.number(), m.number()})
	}
	if m.err != nil {
		return nil, m.err
	}
	return pieces, checkPieces(h.name, pieces, h.realSize, r.left)
}

// data passes the next n bytes of the entry to w.
func (r *reader) data(n int64, w func([]byte) error) error {
	err := r.in.pass(n, func(p []byte) error {
		r.left -= int64(len(p))
		return w(p)
	})
	return cutShort(err)
}

// mapReader reads decimal numbers, one per line, from whole blocks of an entry.
type mapReader struct {
	r    *reader
	name string
	buf  [blockSize]byte
	rest []byte
	err  error
}

func (m *mapReader) number() int64 {
	var digits []byte
	for m.err == nil {
		if len(m.rest) == 0 {
			if m.r.left < blockSize {
				m.err = refuse(m.name, "has a broken map of holes")
				break
			}
			if err := m.r.in.full(m.buf[:]); err != nil {
				m.err = cutShort(err)
				break
			}
			m.r.left -= blockSize
			m.rest = m.buf[:]
		}
		c := m.rest[0]
		m.rest = m.rest[1:]
		if c == '\n' {
			n, err := strconv.ParseUint(string(digits), 10, 63)
			if err != nil {
				m.err = refuse(m.name, "has a broken map of holes")
			}
			return int64(n)
		}
		if digits = append(digits, c); len(digits) > 20 {
			m.err = refuse(m.name, "has a broken map of holes")
		}
	}
	return 0
}

// apply sets h from pax records (pax(1), "pax Extended Header").
func (h *header) apply(records map[string]string) error {
	for key, value := range records {
		if value == "" && !strings.HasPrefix(key, xattrRecord) {
			continue // an empty value: the header's value stays
		}
		var err error
		switch key {
		case "path":
			h.name = value
		case "linkpath":
			h.target = value
		case "size":
			h.size, err = parseNumber(value, 63)
		case "uid":
			h.uid, err = parseID(value)
		case "gid":
			h.gid, err = parseID(value)
		case "mtime":
			h.mtime, err = parseTime(value)
		case "comment":
			if n, ok := strings.CutPrefix(value, linksComment); ok {
				h.links, err = strconv.Atoi(n)
			}
		default:
			if name, ok := strings.CutPrefix(key, xattrRecord); ok && name != "" {
				if h.xattrs == nil {
					h.xattrs = map[string]string{}
				}
				h.xattrs[name] = value
			}
		}
		if err != nil {
			return damaged("an entry has the broken record %.60q", key+"="+value)
		}
	}
	return h.applySparse(records)
}

func (h *header) applySparse(records map[string]string) error {
	major, minor := records[sparseRecord+"major"], records[sparseRecord+"minor"]
	if name := records[sparseRecord+"name"]; name != "" {
		h.name = name
	}
	for key := range records {
		h.sparse = h.sparse || strings.HasPrefix(key, sparseRecord)
	}
	if !h.sparse {
		return nil
	}
	if major != "1" || minor != "0" {
		return refuse(h.name, "is in an old format of files with holes").WithHint("make the archive with tar --format=posix")
	}
	var err error
	if h.realSize, err = parseNumber(records[sparseRecord+"realsize"], 63); err != nil {
		return refuse(h.name, "has no size")
	}
	return nil
}

// decodeBlock decodes an old header. ustar and GNU differ in what follows the device numbers.
func decodeBlock(b []byte) (*header, error) {
	sum, err := octal(b[148:156])
	unsigned, signed := checksums(b)
	if err != nil || sum != unsigned && sum != signed {
		return nil, notATar(b)
	}
	h := &header{kind: b[156], name: cString(b[0:100]), target: cString(b[157:257])}
	var mode, uid, gid, mtime, major, minor int64
	for _, f := range []struct {
		to       *int64
		from, at int
	}{{&mode, 100, 108}, {&uid, 108, 116}, {&gid, 116, 124}, {&h.size, 124, 136}, {&mtime, 136, 148}, {&major, 329, 337},
		{&minor, 337, 345}} {
		if f.from >= 329 && h.kind != typeChar && h.kind != typeBlock {
			continue
		}
		if *f.to, err = octal(b[f.from:f.at]); err != nil {
			return nil, damaged("the header of %.300q has a broken number", h.name)
		}
	}
	if h.size < 0 || uid < 0 || uid > 1<<32-2 || gid < 0 || gid > 1<<32-2 || major < 0 || major >= 1<<12 || minor < 0 ||
		minor >= 1<<20 {
		return nil, damaged("the header of %.300q has a number that is out of range", h.name)
	}
	h.mode, h.uid, h.gid, h.mtime, h.major, h.minor = uint32(mode&0o7777), uint32(uid), uint32(gid), time.Unix(mtime, 0),
		uint32(major), uint32(minor)
	if bytes.Equal(b[257:263], []byte("ustar\x00")) {
		if prefix := cString(b[345:500]); prefix != "" {
			h.name = prefix + "/" + h.name
		}
	}
	return h, nil
}

// octal decodes a number of a header: octal digits, or GNU tar's base 256.
func octal(field []byte) (int64, error) {
	if field[0]&0x80 != 0 {
		v := int64(field[0] & 0x3f)
		if field[0]&0x40 != 0 {
			v -= 0x40
		}
		for _, c := range field[1:] {
			if v > 1<<54 || v < -1<<54 {
				return 0, strconv.ErrRange
			}
			v = v<<8 | int64(c)
		}
		return v, nil
	}
	text := strings.Trim(string(field), " \x00")
	if text == "" {
		return 0, nil
	}
	return parseNumberBase(text, 8, 63)
}

func parseNumberBase(s string, base, bits int) (int64, error) {
	n, err := strconv.ParseUint(s, base, bits)
	return int64(n), err
}

func parseNumber(s string, bits int) (int64, error) { return parseNumberBase(s, 10, bits) }

// parseID parses an owner. The largest number is refused, because it means no owner (chown(2)).
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if n == 1<<32-1 {
		err = strconv.ErrRange
	}
	return uint32(n), err
}

// parseTime parses seconds with a fraction. It keeps nanoseconds.
func parseTime(s string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	fraction = (fraction + "000000000")[:9]
	ns, err := strconv.ParseUint(fraction, 10, 63)
	if strings.HasPrefix(whole, "-") {
		return time.Unix(seconds, -int64(ns)), err
	}
	return time.Unix(seconds, int64(ns)), err
}

// decodeRecords decodes lines of the form "LENGTH KEY=VALUE\n".
func decodeRecords(b []byte) (map[string]string, error) {
	records := map[string]string{}
	for len(b) > 0 {
		length, _, ok := bytes.Cut(b[:min(len(b), 8)], []byte(" "))
		n, err := parseNumber(string(length), 31)
		if !ok || err != nil || n <= int64(len(length)+1) || n > int64(len(b)) || b[n-1] != '\n' {
			return nil, damaged("the records of an entry are broken")
		}
		key, value, ok := strings.Cut(string(b[len(length)+1:n-1]), "=")
		if !ok || key == "" {
			return nil, damaged("the records of an entry are broken")
		}
		records[key] = value
		b = b[n:]
	}
	return records, nil
}

// cString returns the bytes before the first NUL.
func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func damaged(format string, args ...any) *banger.Error {
	return banger.Errorf(banger.CodeInvalid, "the archive is damaged: "+format, args...)
}

// cutShort returns an error that describes a premature end.
func cutShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damaged("it ends before its end")
	}
	return err
}

// notATar returns an error that says what the bytes are instead, if that is known.
func notATar(b []byte) error {
	for start, tool := range map[string]string{
		"\x1f\x8b":         "gunzip",
		"\x28\xb5\x2f\xfd": "unzstd",
		"\xfd7zXZ":         "unxz",
		"BZh":              "bunzip2",
	} {
		if bytes.HasPrefix(b, []byte(start)) {
			return banger.Errorf(banger.CodeInvalid, "the archive is compressed").WithHint("send it through %s", tool)
		}
	}
	return damaged("a header is no header of a tar")
}
