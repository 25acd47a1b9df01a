package sshd

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// terminal is the payload of pty-req (RFC 4254, 6.2).
type terminal struct {
	Term                      string
	Cols, Rows, Width, Height uint32
	Modes                     string
}

func (t *terminal) size() (rows, cols uint16) {
	return uint16(min(t.Rows, 1<<16-1)), uint16(min(t.Cols, 1<<16-1))
}

// disabled is the value of a control character that is switched off (RFC 4254, 8).
const disabled = 255

// setModes gives a terminal the modes of the client's (RFC 4254, 8; RFC 8160): pairs of
// a number and a value, up to a zero. It skips what Linux does not know, and speeds and
// parity, which mean nothing for a pseudo-terminal.
func (t *terminal) setModes(termios *unix.Termios) {
	chars := map[byte]int{
		1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
		8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT,
		18: unix.VDISCARD,
	}
	type flag struct {
		word *uint32
		bit  uint32
	}
	in, local, out := &termios.Iflag, &termios.Lflag, &termios.Oflag
	flags := map[byte]flag{
		30: {in, unix.IGNPAR}, 31: {in, unix.PARMRK}, 32: {in, unix.INPCK}, 33: {in, unix.ISTRIP},
		34: {in, unix.INLCR}, 35: {in, unix.IGNCR},
		36: {in, unix.ICRNL}, 37: {in, unix.IUCLC}, 38: {in, unix.IXON},
		39: {in, unix.IXANY}, 40: {in, unix.IXOFF}, 41: {in, unix.IMAXBEL}, 42: {in, unix.IUTF8},
		50: {local, unix.ISIG}, 51: {local, unix.ICANON}, 52: {local, unix.XCASE}, 53: {local, unix.ECHO},
		54: {local, unix.ECHOE}, 55: {local, unix.ECHOK},
		56: {local, unix.ECHONL}, 57: {local, unix.NOFLSH}, 58: {local, unix.TOSTOP},
		59: {local, unix.IEXTEN}, 60: {local, unix.ECHOCTL}, 61: {local, unix.ECHOKE},
		70: {out, unix.OPOST}, 71: {out, unix.OLCUC}, 72: {out, unix.ONLCR}, 73: {out, unix.OCRNL},
		74: {out, unix.ONOCR}, 75: {out, unix.ONLRET},
	}
	for m := []byte(t.Modes); len(m) >= 5 && m[0] != 0; m = m[5:] {
		value := binary.BigEndian.Uint32(m[1:])
		if at, ok := chars[m[0]]; ok && value <= disabled {
			termios.Cc[at] = byte(value)
			if value == disabled {
				termios.Cc[at] = 0 // _POSIX_VDISABLE
			}
		}
		if f, ok := flags[m[0]]; ok {
			*f.word &^= f.bit
			if value != 0 {
				*f.word |= f.bit
			}
		}
	}
}
