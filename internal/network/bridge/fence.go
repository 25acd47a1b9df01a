package bridge

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What a classifier of direct action answers (linux/pkt_cls.h).
const (
	actOK   = 0
	actShot = 2
)

// Our classifiers come first. They are recognised by their handle, which changes with the programs.
const (
	fencePriority = 1
	fenceHandle   = 0xb001
)

// bridgeFence drops packets that come from the bridge without the mark of admission. It is not part
// of the ruleset, so a flush of the ruleset closes the bridge.
func bridgeFence() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: extMark},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: markAdmitted, SkipFalse: 1},
		bpf.RetConstant{Val: actOK},
		bpf.RetConstant{Val: actShot},
	}
}

// extMark is the packet's mark (linux/filter.h, SKF_AD_MARK).
const extMark = bpf.Extension(20)

// tapFence drops frames to 01:80:c2:00:00:00 and the 15 after it. The bridge gives
// these to the host as if they came from the tap itself, past our tables (IEEE
// 802.1D, 7.12.6; br_handle_local_finish).
func tapFence() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x0180c200, SkipFalse: 4},
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1},
		bpf.RetConstant{Val: actShot},
		bpf.RetConstant{Val: actOK},
	}
}

// fence puts the program where the link's frames come in, unless it is there. It
// needs no bpf(2), which is not allowed in a user namespace: this is the old
// filter language (tc-bpf(8), "bytecode").
func (b *Bridge) fence(link netlink.Link, program []bpf.Instruction) error {
	index := link.Attrs().Index
	filters, err := b.nl.FilterList(link, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return fmt.Errorf("list filters: %w", err)
	}
	for _, f := range filters {
		have, ok := f.(*netlink.BpfFilter)
		if ok && have.Handle == fenceHandle && have.Priority == fencePriority && have.DirectAction {
			return nil
		}
	}
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact"}
	qdisc.QdiscAttrs = netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}
	if err := b.nl.QdiscReplace(qdisc); err != nil {
		return fmt.Errorf("add a classifier: %w", err)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	var ops []byte
	for _, i := range raw { // struct sock_filter
		ops = append(ops, nl.Uint16Attr(i.Op)...)
		ops = append(ops, i.Jt, i.Jf)
		ops = append(ops, nl.Uint32Attr(i.K)...)
	}
	req := b.request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Parent: netlink.HANDLE_MIN_INGRESS,
		Handle: fenceHandle, Info: netlink.MakeHandle(fencePriority, nl.Swap16(unix.ETH_P_ALL))})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_BPF_OPS_LEN, nl.Uint16Attr(uint16(len(raw))))
	options.AddRtAttr(nl.TCA_BPF_OPS, ops)
	options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
	req.AddData(options)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("add a filter: %w", err)
	}
	return nil
}
