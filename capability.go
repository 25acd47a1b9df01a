package banger

import (
	"slices"
	"strings"
)

// capabilities are the names of the kernel's capabilities (capabilities(7)) without CAP_, each at its number.
var capabilities = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
	AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)

// allCapabilities stands for all of them in a list.
const allCapabilities = "ALL"

// CapabilityNames returns the names that DroppedCapabilities knows: ALL, and each capability without CAP_.
func CapabilityNames() []string { return append([]string{allCapabilities}, capabilities...) }

// DroppedCapabilities returns the numbers of the capabilities that no command of a VM has, by docker's rules: what drop
// lists, or all of them for ALL, without what add lists. The names may begin with CAP_ and be in any case. A command in
// a VM has all other capabilities. It returns an *Error of CodeInvalid for a name that is not known.
func DroppedCapabilities(drop, add []string) ([]int, error) {
	dropped := make([]bool, len(capabilities))
	for _, change := range []struct {
		field string
		names []string
		to    bool
	}{{"cap_drop", drop, true}, {"cap_add", add, false}} {
		for _, name := range change.names {
			n := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
			i := slices.Index(capabilities, n)
			switch {
			case n == allCapabilities:
				for i := range dropped {
					dropped[i] = change.to
				}
			case i < 0:
				return nil, Errorf(CodeInvalid, "%s has %.80q, but must be a capability of Linux, such as NET_RAW, or ALL",
					change.field, name)
			default:
				dropped[i] = change.to
			}
		}
	}
	var numbers []int
	for i, is := range dropped {
		if is {
			numbers = append(numbers, i)
		}
	}
	return numbers, nil
}
