package nameserver

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/miekg/dns"
)

// Bounds of what a message takes when it is unpacked, in bytes. A few bytes of a message can stand
// for a name of many, so that 64 KiB become 50 MiB.
const (
	maxQuery    = 4096       // of a question as it comes
	smallAnswer = 64 << 10   // any number at once (see maxQuestions)
	maxAnswer   = 1536 << 10 // of one at a time
)

// What the parts of a message take in dns.Msg: of its structures, not more than this.
const (
	recordCost = 160
	nameMost   = 1024 // a name of 255 bytes, each shown by four
	itemCost   = 48   // of a list of texts, which is copied as it grows
	byteCost   = 64   // of a list of empty parameters, the worst
)

var (
	errBroken = errors.New("the DNS message is broken")
	errLarge  = errors.New("the DNS message takes too much memory")
)

// unpacker lets one large answer of a guest be unpacked at a time.
type unpacker struct{ mu sync.Mutex }

// hold keeps other large answers waiting; its zero value does not.
type hold struct{ release func() }

func (h *hold) end() {
	if h.release != nil {
		h.release()
	}
}

// unpack unpacks an answer within bounds. Other large ones wait until h ends.
func (p *unpacker) unpack(b []byte, r *dns.Msg, h *hold) error {
	cost, err := messageCost(b)
	if err != nil {
		return err
	}
	if cost > smallAnswer {
		p.mu.Lock()
		h.release = p.mu.Unlock
	}
	return r.Unpack(b)
}

// isQuestion reports whether a guest's message is what a resolver asks: one question, and beside it
// nothing but options. Another message is not unpacked.
func isQuestion(m []byte) bool {
	if len(m) < 12 || len(m) > maxQuery || binary.BigEndian.Uint16(m[4:]) != 1 || binary.BigEndian.Uint32(m[6:]) != 0 {
		return false
	}
	more := binary.BigEndian.Uint16(m[10:])
	_, at, err := nameCost(m, 12)
	if err != nil || more > 1 {
		return false
	}
	at += 4
	return more == 0 || len(m) >= at+3 && m[at] == 0 && binary.BigEndian.Uint16(m[at+1:]) == dns.TypeOPT
}

// messageCost returns what a message takes at most when it is unpacked.
func messageCost(m []byte) (cost int, err error) {
	if len(m) < 12 {
		return 0, errBroken
	}
	at, n := 12, 0
	for range binary.BigEndian.Uint16(m[4:]) {
		if at == len(m) {
			break
		}
		n, at, err = nameCost(m, at)
		if at += 4; err != nil || at > len(m) {
			return 0, errBroken
		}
		cost += n + recordCost
	}
	records := 0
	for _, count := range []int{6, 8, 10} {
		records += int(binary.BigEndian.Uint16(m[count:]))
	}
	for range records {
		if at == len(m) {
			break // cut off between records, which package dns takes too
		}
		n, at, err = nameCost(m, at)
		if err != nil || at+10 > len(m) {
			return 0, errBroken
		}
		kind, size := binary.BigEndian.Uint16(m[at:]), int(binary.BigEndian.Uint16(m[at+8:]))
		if at += 10; at+size > len(m) {
			return 0, errBroken
		}
		cost += n + recordCost + dataCost(m, at, size, kind)
		if at += size; cost > maxAnswer {
			return 0, errLarge
		}
	}
	return cost, nil
}

// dataCost returns what the data of a record of a type takes at most.
func dataCost(m []byte, at, size int, kind uint16) int {
	switch kind {
	case dns.TypeA, dns.TypeAAAA:
		return 2 * size
	case dns.TypeTXT, dns.TypeSPF:
		return textCost(m[at : at+size])
	case dns.TypeDNSKEY, dns.TypeDS, dns.TypeTLSA, dns.TypeSSHFP, dns.TypeCAA, dns.TypeNSEC3PARAM, dns.TypeHINFO,
		dns.TypeLOC:
		return 4 * size
	case dns.TypeNS, dns.TypeCNAME, dns.TypePTR, dns.TypeDNAME:
		return namesCost(m, at, 1)
	case dns.TypeMX, dns.TypeAFSDB, dns.TypeKX, dns.TypeRT:
		return namesCost(m, at+2, 1)
	case dns.TypeSRV:
		return namesCost(m, at+6, 1)
	case dns.TypeSOA, dns.TypeRP, dns.TypeMINFO:
		return namesCost(m, at, 2)
	case dns.TypeRRSIG, dns.TypeSIG:
		return 4*size + namesCost(m, at+18, 1)
	case dns.TypeHIP: // a list of names, each two bytes
		return byteCost*size + nameMost*(size/2)
	}
	return byteCost*size + 2*nameMost
}

// textCost returns what a list of texts takes (RFC 1035, 3.3.14).
func textCost(data []byte) (cost int) {
	for len(data) > 0 {
		n := min(int(data[0])+1, len(data))
		cost, data = cost+itemCost+4*n, data[n:]
	}
	return cost
}

// namesCost returns what n names one behind the other take.
func namesCost(m []byte, at, n int) (cost int) {
	for range n {
		one, next, err := nameCost(m, at)
		if err != nil {
			return cost // the message will not be unpacked further than here
		}
		cost, at = cost+one, next
	}
	return cost
}

// nameCost returns what the name at an offset takes as text, and where it ends.
func nameCost(m []byte, at int) (cost, end int, err error) {
	for hops, size := 0, 0; at < len(m); {
		c := int(m[at])
		switch c & 0xc0 {
		case 0:
			if c == 0 {
				if hops == 0 {
					end = at + 1
				}
				return cost + 1, end, nil
			}
			if size += c + 1; at+1+c > len(m) || size > 255 {
				return 0, 0, errBroken
			}
			for _, b := range m[at+1 : at+1+c] {
				switch {
				case b <= ' ' || b > '~':
					cost += 4
				case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_':
					cost++
				default:
					cost += 2
				}
			}
			cost, at = cost+1, at+1+c
		case 0xc0:
			if at+2 > len(m) {
				return 0, 0, errBroken
			}
			if hops == 0 {
				end = at + 2
			}
			if hops++; hops > 126 { // as many labels as a name has
				return 0, 0, errBroken
			}
			at = int(binary.BigEndian.Uint16(m[at:])) & 0x3fff
		default:
			return 0, 0, errBroken
		}
	}
	return 0, 0, errBroken
}
