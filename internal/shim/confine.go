package shim

import (
	"fmt"
	"path/filepath"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"

	"banger/internal/vmm"
)

// systemDirs hold programs, their libraries and firmware, and what the kernel
// tells about itself. /proc shows other processes' names, but landlock keeps
// their memory and environment closed (landlock(7), "Ptrace restrictions").
var systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/proc", "/sys/devices/system"}

// deniedCalls have no use in a shim or a VMM, and are what an escape would reach
// for next: other processes, namespaces, mounts, and the kernel's rarely walked
// corners. They answer EPERM.
var deniedCalls = []string{
	"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
	"unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl",
	"bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "open_by_handle_at", "name_to_handle_at",
	"settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "syslog", "vhangup", "personality",
	"io_uring_setup", "io_uring_enter", "io_uring_register",
}

// Confine takes away from this process, and from the VMM that it will start,
// every right that the VM of spec does not need: files other than its own, TCP,
// gaining privileges, and deniedCalls (landlock(7), seccomp(2)). It cannot be
// undone. On a kernel without landlock, or with an older one, it does what the
// kernel can.
func Confine(dir string, spec Spec) error {
	read := []string{spec.VM.Kernel, spec.VM.Initrd}
	write := []string{}
	for _, d := range spec.VM.Drives {
		if d.ReadOnly {
			read = append(read, d.Path)
		} else {
			write = append(write, d.Path)
		}
	}
	devices := []string{"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}
	if spec.VM.Accel == vmm.AccelKVM {
		devices = append(devices, "/dev/kvm")
	}
	// Not V6: it scopes signals, and each thread would be a domain of its own that
	// may not kill the VMM which another thread has started.
	err := landlock.V5.BestEffort().Restrict(
		landlock.RODirs(systemDirs...).IgnoreIfMissing(),
		landlock.ROFiles("/etc/ld.so.cache").IgnoreIfMissing(),
		landlock.ROFiles(read...),
		landlock.RWFiles(write...),
		landlock.RWFiles(devices...).WithIoctlDev().IgnoreIfMissing(),
		landlock.RWDirs(dir, spec.Run, filepath.Dir(spec.VM.Memory)),
	)
	if err != nil {
		return fmt.Errorf("confining the shim: %w", err)
	}
	err = seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Names: deniedCalls, Action: seccomp.ActionErrno}},
	}})
	if err != nil {
		return fmt.Errorf("confining the shim: %w", err)
	}
	return nil
}
