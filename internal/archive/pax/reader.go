package pax

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"

	"banger"
)

// Reader reads the entries of a hostile tar: ustar, pax, and GNU tar's long names
// and sparse format 1.0.
type Reader struct {
	in   *input
	left int64 // unread bytes of the entry
	pad  int64 // zeros after them
}

// NewReader returns a reader of r. If r lends its buffer by a method ReadChunk(max int) ([]byte, error), data is passed
// on from there and not copied.
func NewReader(r io.Reader) *Reader { return &Reader{in: newInput(r)} }

// Drain reads to the end of the stream. It returns an error if that does not come within limit bytes.
func (r *Reader) Drain(limit int64) error { return r.in.drain(limit) }

// overrides are values from records that replace those of the next header.
type overrides struct {
	records    map[string]string
	name, link string
}

// Next returns the next entry. io.EOF means that the tar has ended properly.
func (r *Reader) Next() (*Header, error) {
	var over overrides
	for entry := 0; ; entry++ {
		if err := r.in.pass(r.left+r.pad, drop); err != nil {
			return nil, cutShort(err)
		}
		r.left, r.pad = 0, 0
		var b [BlockSize]byte
		if err := r.in.full(b[:]); err != nil {
			return nil, cutShort(err)
		}
		if b == [BlockSize]byte{} {
			if entry > 0 {
				return nil, Damaged("it ends between an entry's records and the entry")
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
			return nil, Damaged("too many records stand before one entry")
		}
	}
}

// records handles a record that describes the next entry. It returns true if h is an entry itself.
func (r *Reader) records(h *Header, over *overrides) (done bool, err error) {
	switch h.Kind {
	case kindPAX, kindGlobal, kindLongName, kindLongLink:
	default:
		return true, nil
	}
	if h.Size > maxPAX {
		return false, Damaged("records of an entry have %d bytes, over the limit of %d", h.Size, maxPAX)
	}
	body := make([]byte, h.Size)
	if err := r.in.full(body); err != nil {
		return false, cutShort(err)
	}
	r.pad = -h.Size & (BlockSize - 1)
	switch h.Kind {
	case kindLongName:
		over.name = cString(body)
	case kindLongLink:
		over.link = cString(body)
	case kindPAX:
		over.records, err = decodeRecords(body)
	case kindGlobal:
		var global map[string]string
		global, err = decodeRecords(body)
		for key := range global {
			if key != "comment" {
				return false, Damaged("it has a record %.40q for all entries, which is not supported", key)
			}
		}
	}
	return false, err
}

// complete applies the records and checks the rules for all entries.
func (r *Reader) complete(h *Header, over overrides) error {
	if over.name != "" {
		h.Name = over.name
	}
	if over.link != "" {
		h.Target = over.link
	}
	if err := h.apply(over.records); err != nil {
		return err
	}
	if h.Kind == 0 || h.Kind == '7' {
		h.Kind = KindFile
	}
	if h.Kind == KindFile && strings.HasSuffix(h.Name, "/") {
		h.Kind = KindDir
	}
	switch {
	case h.Kind == 'S' || h.Sparse && h.Kind != KindFile:
		return Refuse(h.Name, "is in an old format of files with holes").WithHint("make the archive with tar --format=posix")
	case h.Kind < KindFile || h.Kind > KindFifo:
		return Refuse(h.Name, "is of the unknown type %q", h.Kind)
	case len(h.Name) > maxName || len(h.Target) > maxName:
		return Refuse(h.Name, "has a name of more than %d bytes", maxName)
	case strings.ContainsRune(h.Name, 0) || strings.ContainsRune(h.Target, 0):
		return Refuse(h.Name, "has a NUL in its name")
	}
	if h.Kind != KindFile {
		h.Size = 0 // some programs write the size of a link's target
	}
	r.left, r.pad = h.Size, -h.Size&(BlockSize-1)
	return nil
}

// Pieces returns the pieces of a file that have data. The rest are holes.
func (r *Reader) Pieces(h *Header) ([]Piece, error) {
	if !h.Sparse {
		return []Piece{{0, h.Size}}, nil
	}
	m := mapReader{r: r, name: h.Name}
	n := m.number()
	if m.err == nil && n > maxSparse {
		return nil, Refuse(h.Name, "consists of %d pieces, over the limit of %d", n, maxSparse)
	}
	var pieces []Piece
	for i := int64(0); i < n && m.err == nil; i++ {
		pieces = append(pieces, Piece{m.number(), m.number()})
	}
	if m.err != nil {
		return nil, m.err
	}
	return pieces, checkPieces(h.Name, pieces, h.RealSize, r.left)
}

// Data passes the next n bytes of the entry to w.
func (r *Reader) Data(n int64, w func([]byte) error) error {
	err := r.in.pass(n, func(p []byte) error {
		r.left -= int64(len(p))
		return w(p)
	})
	return cutShort(err)
}

// mapReader reads decimal numbers, one per line, from whole blocks of an entry.
type mapReader struct {
	r    *Reader
	name string
	buf  [BlockSize]byte
	rest []byte
	err  error
}

// number returns the next number. After an error, which m.err keeps, it returns 0.
func (m *mapReader) number() int64 {
	var digits []byte
	for m.err == nil {
		if len(m.rest) == 0 {
			if m.r.left < BlockSize {
				m.err = Refuse(m.name, "has a broken map of holes")
				break
			}
			if err := m.r.in.full(m.buf[:]); err != nil {
				m.err = cutShort(err)
				break
			}
			m.r.left -= BlockSize
			m.rest = m.buf[:]
		}
		c := m.rest[0]
		m.rest = m.rest[1:]
		if c == '\n' {
			n, err := strconv.ParseUint(string(digits), 10, 63)
			if err != nil {
				m.err = Refuse(m.name, "has a broken map of holes")
			}
			return int64(n)
		}
		if digits = append(digits, c); len(digits) > 20 {
			m.err = Refuse(m.name, "has a broken map of holes")
		}
	}
	return 0
}

// apply sets h from pax records (pax(1), "pax Extended Header").
func (h *Header) apply(records map[string]string) error {
	for key, value := range records {
		if value == "" && !strings.HasPrefix(key, xattrRecord) {
			continue // an empty value: the header's value stays
		}
		var err error
		switch key {
		case "path":
			h.Name = value
		case "linkpath":
			h.Target = value
		case "size":
			h.Size, err = parseNumber(value, 63)
		case "uid":
			h.UID, err = parseID(value)
		case "gid":
			h.GID, err = parseID(value)
		case "mtime":
			h.Mtime, err = parseTime(value)
		case "comment":
			if n, ok := strings.CutPrefix(value, linksComment); ok {
				h.Links, err = strconv.Atoi(n)
			}
		default:
			if name, ok := strings.CutPrefix(key, xattrRecord); ok && name != "" {
				if h.Xattrs == nil {
					h.Xattrs = map[string]string{}
				}
				h.Xattrs[name] = value
			}
		}
		if err != nil {
			return Damaged("an entry has the broken record %.60q", key+"="+value)
		}
	}
	return h.applySparse(records)
}

// applySparse sets h from the records of a file with holes.
func (h *Header) applySparse(records map[string]string) error {
	major, minor := records[sparseRecord+"major"], records[sparseRecord+"minor"]
	if name := records[sparseRecord+"name"]; name != "" {
		h.Name = name
	}
	for key := range records {
		h.Sparse = h.Sparse || strings.HasPrefix(key, sparseRecord)
	}
	if !h.Sparse {
		return nil
	}
	if major != "1" || minor != "0" {
		return Refuse(h.Name, "is in an old format of files with holes").WithHint("make the archive with tar --format=posix")
	}
	var err error
	if h.RealSize, err = parseNumber(records[sparseRecord+"realsize"], 63); err != nil {
		return Refuse(h.Name, "has no size")
	}
	return nil
}

// decodeBlock decodes an old header. ustar and GNU differ in what follows the device numbers.
func decodeBlock(b []byte) (*Header, error) {
	sum, err := octal(b[148:156])
	unsigned, signed := checksums(b)
	if err != nil || sum != unsigned && sum != signed {
		return nil, notATar(b)
	}
	h := &Header{Kind: b[156], Name: cString(b[0:100]), Target: cString(b[157:257])}
	var mode, uid, gid, mtime, major, minor int64
	for _, f := range []struct {
		to       *int64
		from, at int
	}{{&mode, 100, 108}, {&uid, 108, 116}, {&gid, 116, 124}, {&h.Size, 124, 136}, {&mtime, 136, 148}, {&major, 329, 337},
		{&minor, 337, 345}} {
		if f.from >= 329 && h.Kind != KindChar && h.Kind != KindBlock {
			continue
		}
		if *f.to, err = octal(b[f.from:f.at]); err != nil {
			return nil, Damaged("the header of %.300q has a broken number", h.Name)
		}
	}
	if h.Size < 0 || uid < 0 || uid > 1<<32-2 || gid < 0 || gid > 1<<32-2 || major < 0 || major >= 1<<12 || minor < 0 ||
		minor >= 1<<20 {
		return nil, Damaged("the header of %.300q has a number that is out of range", h.Name)
	}
	h.Mode, h.UID, h.GID, h.Mtime, h.Major, h.Minor = uint32(mode&0o7777), uint32(uid), uint32(gid), time.Unix(mtime, 0),
		uint32(major), uint32(minor)
	if bytes.Equal(b[257:263], []byte("ustar\x00")) {
		if prefix := cString(b[345:500]); prefix != "" {
			h.Name = prefix + "/" + h.Name
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

// parseNumberBase parses a number of at most bits bits.
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
			return nil, Damaged("the records of an entry are broken")
		}
		key, value, ok := strings.Cut(string(b[len(length)+1:n-1]), "=")
		if !ok || key == "" {
			return nil, Damaged("the records of an entry are broken")
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

// Damaged returns the error for an archive that does not follow the format.
func Damaged(format string, args ...any) *banger.Error {
	return banger.Errorf(banger.CodeInvalid, "the archive is damaged: "+format, args...)
}

// cutShort describes the error of a stream that ends too early. It returns other errors as they are.
func cutShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return Damaged("its end is missing")
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
	return Damaged("one of its headers is not valid")
}
