// Package host finds out what this host can do: whether KVM really executes guests, which programs are installed, and
// how much space there is. It only reads and reports. It knows nothing of VMs.
package host

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// KVM is the result of the KVM probe.
type KVM struct {
	Usable bool   `json:"usable"`
	Reason string `json:"reason,omitempty"` // if not usable: why, as a clause for a person
	BootID string `json:"boot_id"`
	UID    int    `json:"uid"` // permissions differ between users
}

// ProbeKVM finds out whether KVM executes guest code in hardware, by running a guest of 20 bytes. It is not enough
// that /dev/kvm opens: paravirtual hosts have one that emulates instruction by instruction. The result is cached in
// dir for this boot of the host and this user. dir may be "".
func ProbeKVM(dir string) KVM {
	k := KVM{BootID: BootID(), UID: os.Getuid()}
	cache := filepath.Join(dir, "kvm.json")
	if dir != "" {
		var old KVM
		if data, err := os.ReadFile(cache); err == nil && json.Unmarshal(data, &old) == nil &&
			old.BootID == k.BootID && old.UID == k.UID && old.BootID != "" {
			return old
		}
	}
	if err := probeKVM(); err != nil {
		k.Reason = err.Error()
	} else {
		k.Usable = true
	}
	if dir != "" {
		if data, err := json.Marshal(k); err == nil {
			tmp := cache + ".tmp"
			if os.WriteFile(tmp, data, 0o600) == nil {
				os.Rename(tmp, cache)
			}
		}
	}
	return k
}

// BootID returns the id of this boot of the host (random(4)), or "" if the kernel does not provide it.
func BootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// Memory returns the size of the host's memory, swap included, in bytes. It returns 0 if the kernel does not provide
// it.
func Memory() int64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram+info.Totalswap) * int64(info.Unit)
}

// KVMGroup returns the group of /dev/kvm, or 0 if that does not exist.
func KVMGroup() uint32 {
	var st syscall.Stat_t
	if err := syscall.Stat("/dev/kvm", &st); err != nil {
		return 0
	}
	return st.Gid
}
