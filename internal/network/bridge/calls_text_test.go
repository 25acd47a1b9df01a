package bridge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file converts requests of netlink to text. It uses the names in the kernel's headers
// (linux/rtnetlink.h, linux/netfilter/nf_tables.h), without their common prefixes. It leaves out
// only sizes, sequence numbers, and zeros in headers. A value without a name appears as its number
// and its bytes.

// message is a kind of message: its name, which follows the words NEW, GET and so on, the numbers in
// its header, and its attributes.
type message struct {
	name   string
	header []field
	attrs  attributes
}

type field struct {
	name string
	size int
	tell teller
}

type attributes map[uint16]attribute

type attribute struct {
	name string
	tell teller
}

type teller func([]byte) string

var (
	family  = field{"", 1, tellFamily("inet")}
	index   = field{"", 4, tellLink}
	traffic = []field{family, {"", 3, nil}, index, {"handle", 4, tellBits}, {"parent", 4, tellBits}, {"info", 4, tellBits}}

	// Of four types each: RTM_NEW..., DEL, GET, SET.
	rtnetlink = []message{
		{"LINK", []field{family, {"", 1, nil}, {"type", 2, tellNumber}, index, {"flags", 4, tellBits},
			{"change", 4, tellBits}}, attributes{
			1: {"address", tellMAC}, 3: {"ifname", tellString}, 10: {"master", tellLink},
			12: {"protinfo", tellNest(attributes{8: {"learning", tellNumber}, 9: {"unicast_flood", tellNumber},
				27: {"mcast_flood", tellNumber}, 30: {"bcast_flood", tellNumber}, 33: {"isolated", tellNumber},
				39: {"locked", tellNumber}})},
			13: {"txqlen", tellNumber}, 18: {"linkinfo", tellNest(attributes{1: {"kind", tellString},
				2: {"data", tellNest(attributes{23: {"mcast_snooping", tellNumber}})}})},
			20: {"ifalias", tellString}, 29: {"ext_mask", tellBits}}},
		{"ADDR", []field{family, {"prefixlen", 1, tellNumber}, {"flags", 1, tellBits}, {"scope", 1, tellNumber}, index},
			attributes{
				1: {"address", tellIP}, 2: {"local", tellIP}, 4: {"broadcast", tellIP}}},
		{"ROUTE", []field{family, {"dst_len", 1, tellNumber}, {"src_len", 1, tellNumber}, {"tos", 1, tellNumber},
			{"table", 1, tellNumber},
			{"protocol", 1, tellNumber}, {"scope", 1, tellNumber}, {"type", 1, tellNumber}, {"flags", 4, tellBits}}, nil},
		{"NEIGH", []field{family, {"", 3, nil}, index, {"state", 2, tellBits}, {"flags", 1, tellBits},
			{"type", 1, tellNumber}}, attributes{
			1: {"dst", tellIP}, 2: {"lladdr", tellMAC}}},
		{"RULE", []field{family, {"dst_len", 1, tellNumber}, {"src_len", 1, tellNumber}, {"tos", 1, tellNumber},
			{"table", 1, tellNumber}, {"", 2, nil},
			{"action", 1, tellNumber}, {"flags", 4, tellBits}}, attributes{
			1: {"dst", tellIP}, 3: {"iifname", tellString}, 6: {"priority", tellNumber}, 10: {"fwmark", tellBits},
			15: {"table", tellNumber}, 16: {"fwmask", tellBits}, 21: {"protocol", tellNumber}}},
		{"QDISC", traffic, attributes{1: {"kind", tellString}}},
		{"TCLASS", traffic, nil},
		{"TFILTER", traffic, attributes{1: {"kind", tellString}, 2: {"options",
			tellNest(attributes{4: {"ops_len", tellNumber}, 5: {"ops", tellWords}, 8: {"flags", tellBits}})}}},
	}

	nfgenmsg = []field{{"", 1, tellFamily("ip")}, {"version", 1, tellBig}, {"res_id", 2, tellBig}}

	// Of three types each: NFT_MSG_NEW..., GET, DEL.
	nfTables = []message{
		{"TABLE", nfgenmsg, attributes{1: {"name", tellString}, 2: {"flags", tellBigBits}}},
		{"CHAIN", nfgenmsg, attributes{1: {"table", tellString}, 3: {"name", tellString},
			4: {"hook", tellNest(attributes{1: {"hooknum", tellBig}, 2: {"priority", tellBig}})},
			5: {"policy", tellBig}, 7: {"type", tellString}}},
		{"RULE", nfgenmsg, attributes{1: {"table", tellString}, 2: {"chain", tellString},
			4: {"", tellLines(tellExpression)}}},
		{"SET", nfgenmsg, attributes{1: {"table", tellString}, 2: {"name", tellString}, 3: {"flags", tellBigBits},
			4: {"key_type", tellBigBits}, 5: {"key_len", tellBig}, 6: {"data_type", tellBigBits}, 7: {"data_len", tellBig},
			9: {"desc", tellNest(attributes{1: {"size", tellBig}, 2: {"concat",
				tellNest(attributes{1: {"", tellNest(attributes{1: {"len", tellBig}})}})}})}, 10: {"id", tellBig},
			13: {"userdata", tellWords}}},
		{"SETELEM", nfgenmsg, attributes{1: {"table", tellString}, 2: {"set", tellString}, 3: {"", tellSorted(element)},
			4: {"set_id", tellBig}}},
	}

	datum = tellAll(attributes{1: {"", tellWords}, 2: {"verdict", tellNest(attributes{1: {"code", tellBig},
		2: {"chain", tellString}})}})
	element = tellAll(attributes{1: {"", datum}, 2: {"data", datum}, 3: {"flags", tellBigBits},
		4: {"timeout", tellBig}, 10: {"to", datum}})
	expressions = map[string]attributes{
		"meta":    {1: {"dreg", tellBig}, 2: {"key", tellBig}, 3: {"sreg", tellBig}},
		"cmp":     {1: {"sreg", tellBig}, 2: {"op", tellBig}, 3: {"data", datum}},
		"payload": {1: {"dreg", tellBig}, 2: {"base", tellBig}, 3: {"offset", tellBig}, 4: {"len", tellBig}},
		"lookup": {1: {"set", tellString}, 2: {"sreg", tellBig}, 3: {"dreg", tellBig}, 4: {"set_id", tellBig},
			5: {"flags", tellBigBits}},
		"immediate": {1: {"dreg", tellBig}, 2: {"data", datum}},
		"bitwise":   {1: {"sreg", tellBig}, 2: {"dreg", tellBig}, 3: {"len", tellBig}, 4: {"mask", datum}, 5: {"xor", datum}},
		"ct":        {1: {"dreg", tellBig}, 2: {"key", tellBig}},
		"fib":       {1: {"dreg", tellBig}, 2: {"result", tellBig}, 3: {"flags", tellBigBits}},
		"log":       {1: {"group", tellBig}, 3: {"snaplen", tellBig}},
	}
)

// flag is one of the flags of a message. In questions the same bits have other names.
type flag struct {
	bits uint16
	name string
}

var (
	questionFlags = []flag{{unix.NLM_F_DUMP, "dump"}, {unix.NLM_F_ECHO, "echo"}, {unix.NLM_F_ACK, "ack"}}
	changeFlags   = []flag{{unix.NLM_F_CREATE, "create"}, {unix.NLM_F_EXCL, "excl"}, {unix.NLM_F_REPLACE, "replace"},
		{unix.NLM_F_APPEND, "append"}, {unix.NLM_F_ECHO, "echo"}, {unix.NLM_F_ACK, "ack"}}
)

// requestsAsText returns the messages of one datagram as text.
func requestsAsText(protocol int, datagram []byte) (out []string) {
	for len(datagram) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(datagram))
		if size < unix.NLMSG_HDRLEN || size > len(datagram) {
			break
		}
		out = append(out, requestAsText(protocol, datagram[:size]))
		datagram = datagram[min(aligned(size), len(datagram)):]
	}
	if len(datagram) > 0 {
		out = append(out, fmt.Sprintf("no message: %x", datagram))
	}
	return out
}

func requestAsText(protocol int, request []byte) string {
	kind, bits := binary.NativeEndian.Uint16(request[4:]), binary.NativeEndian.Uint16(request[6:])
	verb, m := verbAndMessage(protocol, kind)
	words, flags := []string{verb + m.name}, changeFlags
	if strings.Contains(words[0], "_GET") {
		flags = questionFlags
	}
	bits &^= unix.NLM_F_REQUEST // which all have
	for _, f := range flags {
		if bits&f.bits == f.bits {
			words, bits = append(words, f.name), bits&^f.bits
		}
	}
	if bits != 0 {
		words = append(words, fmt.Sprintf("flags %#x", bits))
	}
	body := request[unix.NLMSG_HDRLEN:]
	for _, f := range m.header {
		size := min(f.size, len(body))
		if value := body[:size]; f.tell != nil && len(bytes.Trim(value, "\x00")) > 0 {
			words = append(words, named(f.name, f.tell(value)))
		}
		body = body[size:]
	}
	return strings.ReplaceAll(named(strings.Join(words, " "), tellAll(m.attrs)(body)), " \n", "\n")
}

func verbAndMessage(protocol int, kind uint16) (string, message) {
	group, sub := kind>>8, int(kind&0xff)
	switch {
	case protocol == unix.NETLINK_ROUTE && kind >= unix.RTM_BASE && int(kind-unix.RTM_BASE)/4 < len(rtnetlink):
		return "RTM_" + []string{"NEW", "DEL", "GET", "SET"}[kind%4], rtnetlink[(kind-unix.RTM_BASE)/4]
	case protocol == unix.NETLINK_NETFILTER && group == unix.NFNL_SUBSYS_NFTABLES && sub/3 < len(nfTables):
		return "NFT_MSG_" + []string{"NEW", "GET", "DEL"}[sub%3], nfTables[sub/3]
	case protocol == unix.NETLINK_NETFILTER && group == unix.NFNL_SUBSYS_CTNETLINK && sub < 3:
		return "IPCTNL_MSG_CT_", message{[]string{"NEW", "GET", "DELETE"}[sub], nfgenmsg, nil}
	case protocol == unix.NETLINK_NETFILTER && kind == unix.NFNL_MSG_BATCH_BEGIN:
		return "NFNL_MSG_BATCH_", message{"BEGIN", nfgenmsg, nil}
	case protocol == unix.NETLINK_NETFILTER && kind == unix.NFNL_MSG_BATCH_END:
		return "NFNL_MSG_BATCH_", message{"END", nfgenmsg, nil}
	}
	return "", message{name: fmt.Sprintf("protocol %d type %#x", protocol, kind)}
}

// eachAttribute calls f with the number and the value of each attribute.
func eachAttribute(b []byte, f func(uint16, []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofNlAttr || size > len(b) {
			break
		}
		f(kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:size])
		b = b[min(aligned(size), len(b)):]
	}
	if len(bytes.Trim(b, "\x00")) > 0 {
		f(0, b) // no attribute
	}
}

func aligned(size int) int { return (size + 3) &^ 3 }

func named(name, value string) string { return strings.Trim(name+" "+value, " ") }

// tellAll returns attributes as text, in the order of their numbers, and those with their own lines
// last. Their order does not matter to the kernel.
func tellAll(known attributes) teller {
	return func(b []byte) string {
		type told struct {
			kind uint16
			text string
		}
		var all []told
		eachAttribute(b, func(kind uint16, value []byte) {
			if a, ok := known[kind]; ok {
				all = append(all, told{kind, named(a.name, a.tell(value))})
			} else {
				all = append(all, told{kind, fmt.Sprintf("#%d %x", kind, value)})
			}
		})
		slices.SortStableFunc(all, func(a, b told) int {
			return cmp.Or(strings.Count(a.text, "\n")-strings.Count(b.text, "\n"), int(a.kind)-int(b.kind))
		})
		var words []string
		for _, a := range all {
			words = append(words, a.text)
		}
		return strings.Join(words, " ")
	}
}

func tellNest(known attributes) teller {
	return func(b []byte) string { return "{" + tellAll(known)(b) + "}" }
}

// tellLines returns a list as text, each element on its own line.
func tellLines(tell teller) teller {
	return func(b []byte) string {
		text := ""
		eachAttribute(b, func(_ uint16, value []byte) { text += "\n\t" + tell(value) })
		return text
	}
}

// tellSorted returns the elements of a set, which come from a map, as sorted text.
func tellSorted(tell teller) teller {
	return func(b []byte) string {
		lines := strings.Split(tellLines(tell)(b), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
}

func tellExpression(b []byte) (text string) {
	name := ""
	eachAttribute(b, func(kind uint16, value []byte) {
		if kind == 1 {
			name = tellString(value)
			text = name + text
		} else {
			text += " " + tellAll(expressions[name])(value)
		}
	})
	return strings.TrimSuffix(text, " ")
}

func tellFamily(v4 string) teller {
	return func(b []byte) string {
		switch b[0] {
		case unix.AF_INET:
			return v4
		case unix.AF_BRIDGE:
			return "bridge"
		}
		return "family " + tellNumber(b)
	}
}

func tellString(b []byte) string { return strings.TrimSuffix(string(b), "\x00") }

func tellMAC(b []byte) string { return net.HardwareAddr(b).String() }

func tellIP(b []byte) string { return net.IP(b).String() }

// tellLink returns an index as the name of its link.
func tellLink(b []byte) string { return "@" + tellNumber(b) }

func tellNumber(b []byte) string { return strconv.FormatUint(numberOf(b, binary.NativeEndian), 10) }

func tellBits(b []byte) string { return fmt.Sprintf("%#x", numberOf(b, binary.NativeEndian)) }

// tellBig returns a number in the network's byte order, which nf_tables uses for all numbers. Some
// are negative: priorities, verdicts.
func tellBig(b []byte) string {
	n := numberOf(b, binary.BigEndian)
	if len(b) == 4 {
		return strconv.Itoa(int(int32(n)))
	}
	return strconv.FormatUint(n, 10)
}

func tellBigBits(b []byte) string { return fmt.Sprintf("%#x", numberOf(b, binary.BigEndian)) }

func numberOf(b []byte, order binary.ByteOrder) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(order.Uint16(b))
	case 4:
		return uint64(order.Uint32(b))
	case 8:
		return order.Uint64(b)
	}
	panic(fmt.Sprintf("%x is no number", b))
}

// tellWords returns the content of several registers of four bytes. If it begins with the name of a
// link, it returns that.
func tellWords(b []byte) string {
	var words []string
	name := bytes.TrimRight(b[:min(len(b), unix.IFNAMSIZ)], "\x00")
	if len(name) > 2 && !bytes.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' }) {
		words, b = append(words, strconv.Quote(string(name))), b[min(len(b), unix.IFNAMSIZ):]
	}
	for word := range slices.Chunk(b, 4) {
		words = append(words, hex.EncodeToString(word))
	}
	return strings.Join(words, " ")
}
