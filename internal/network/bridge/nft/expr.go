package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// register returns the kernel's number for the register at an offset (nft_dump_register).
func register(offset uint32) uint32 {
	if offset%16 == 0 {
		return unix.NFT_REG_1 + offset/16
	}
	return unix.NFT_REG32_00 + offset/4
}

// Meta loads a property of the packet to an offset of the registers.
func Meta(key expr.MetaKey, at uint32) expr.Any {
	return &expr.Meta{Key: key, Register: register(at)}
}

// SetMark gives the packet the mark at the first register.
func SetMark() expr.Any {
	return &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register(0)}
}

// State loads the state of the packet's connection to the first register.
func State() expr.Any { return &expr.Ct{Key: expr.CtKeySTATE, Register: register(0)} }

// DestinationType loads the type of the route to the destination to the first register.
func DestinationType() expr.Any {
	return &expr.Fib{Register: register(0), ResultADDRTYPE: true, FlagDADDR: true}
}

// Payload loads size bytes of the packet, from offset after base, to an offset of the registers.
func Payload(base expr.PayloadBase, offset, size, at uint32) expr.Any {
	return &expr.Payload{
		OperationType: expr.PayloadLoad,
		DestRegister:  register(at),
		Base:          base,
		Offset:        offset,
		Len:           size,
	}
}

// Load loads a number to the first register.
func Load(n uint32) expr.Any { return &expr.Immediate{Register: register(0), Data: Native(n)} }

// Mask sets the first register to itself and mask, xor the bits of set.
func Mask(mask, set uint32) expr.Any {
	return &expr.Bitwise{
		SourceRegister: register(0),
		DestRegister:   register(0),
		Len:            4,
		Mask:           Native(mask),
		Xor:            Native(set),
	}
}

// Equal continues the rule if the first registers begin with data.
func Equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register(0), Data: data}
}

// Unequal continues the rule unless the first registers begin with data.
func Unequal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: register(0), Data: data}
}

// In continues the rule if the registers are in the set, or with invert if they are not.
func In(s *Set, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: register(0), SetName: s.Name, Invert: invert}
}

// VerdictOf applies the verdict in a map for the registers. If the map has no entry, the rule
// continues.
func VerdictOf(s *Set) expr.Any {
	return &expr.Lookup{SourceRegister: register(0), SetName: s.Name, IsDestRegSet: true}
}

// Verdict ends the rule with a verdict. The chain is where a jump goes.
func Verdict(kind expr.VerdictKind, chain string) expr.Any {
	return &expr.Verdict{Kind: kind, Chain: chain}
}

// Native returns n in the byte order of the machine.
func Native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
