package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"banger/internal/network"
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

// resolverDirs hold the file that names the host's resolvers, wherever its symlink
// leads, and those that replace it.
var resolverDirs = []string{"/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman"}

// Confine takes away from this process, which is about to become the VMM of spec,
// every right that the VM does not need: files other than its own, sockets other
// than unix ones, gaining privileges, and deniedCalls (landlock(7), seccomp(2)). It
// cannot be undone. On a kernel without landlock, or with an older one, it does
// what the kernel can.
func Confine(dir string, spec Spec) error {
	// Not V6: it scopes signals, and each thread would be a domain of its own that
	// may not kill the VMM which another thread has started.
	if err := landlock.V5.BestEffort().Restrict(files(dir, spec)...); err != nil {
		return fmt.Errorf("confining the VMM: %w", err)
	}
	return filter(seccomp.SyscallGroup{Action: seccomp.ActionErrno, NamesWithCondtions: []seccomp.NameWithConditions{
		{Name: "socket", Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_UNIX}}},
		{Name: "clone", Conditions: []seccomp.Condition{{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_NEWUSER}}},
	}}, seccomp.SyscallGroup{Action: noSuchCall, Names: []string{"clone3"}})
}

// Confinement says what Confine confines by on this kernel.
func Confinement() string {
	if abi, err := landlocksys.LandlockGetABIVersion(); err != nil || abi < 1 {
		return "seccomp alone (this kernel has no landlock, or it is not in the kernel's argument lsm=)"
	}
	return "landlock and seccomp"
}

// noSuchCall answers ENOSYS. The flags of clone3 lie in memory, where no filter sees them;
// who is told that there is none uses clone (clone(2)).
const noSuchCall = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)

// confineSelf takes away from the shim what neither it nor its VMM needs. With a
// network it keeps the host's sockets and the files that name its resolvers.
func confineSelf(dir string, spec Spec) error {
	rules := append(files(dir, spec), landlock.ROFiles("/proc/self/exe")) // it starts the VMM through itself
	if spec.Jail != nil {
		rules = append(rules, landlock.RWDirs(spec.Jail.roots(spec.VM.ID)...))
	}
	if spec.insideTap() {
		// The ids of the VMM's user namespace are written to files that are not there yet, and
		// so are the settings of its network. As before, landlock lets nobody into another's
		// memory, and the kernel nobody who is not root write a setting of the host's.
		rules = append(rules, landlock.PathAccess(writeFile, "/proc"))
	}
	restrict := landlock.V5.BestEffort().Restrict
	if spec.Network != nil {
		dirs := resolverDirs
		if path, err := filepath.EvalSymlinks(network.ResolvConf); err == nil {
			dirs = append(slices.Clone(dirs), filepath.Dir(path))
		}
		rules = append(rules, landlock.RODirs(dirs...).IgnoreIfMissing())
		restrict = landlock.V5.BestEffort().RestrictPaths
	}
	if err := restrict(rules...); err != nil {
		return fmt.Errorf("confining the shim: %w", err)
	}
	return filter()
}

// files are what a VM may read and write.
func files(dir string, spec Spec) []landlock.Rule {
	read := append([]string{spec.VM.Kernel, spec.VM.Initrd}, spec.VM.Reads...)
	if spec.VM.Program != "" {
		read = append(read, spec.VM.Program)
	}
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
	if spec.Network != nil && spec.Network.Tap != "" {
		devices = append(devices, "/dev/net/tun")
	}
	return []landlock.Rule{
		landlock.RODirs(systemDirs...).IgnoreIfMissing(),
		landlock.ROFiles("/etc/ld.so.cache").IgnoreIfMissing(),
		landlock.ROFiles(read...),
		landlock.RWFiles(write...),
		landlock.RWFiles(devices...).WithIoctlDev().IgnoreIfMissing(),
		landlock.RWDirs(dir, spec.Run, filepath.Dir(spec.VM.Memory)),
	}
}

// writeFile is the right to write to a file, all of it (landlock(7)).
const writeFile = landlocksys.AccessFSWriteFile | landlocksys.AccessFSTruncate

// insideTap says that the VMM opens a tap in namespaces of its own.
func (s Spec) insideTap() bool { return s.Network != nil && s.Network.insideTap() }

// filter refuses deniedCalls and what more groups say.
func filter(more ...seccomp.SyscallGroup) error {
	groups := append([]seccomp.SyscallGroup{{Names: deniedCalls, Action: seccomp.ActionErrno}}, more...)
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow, Syscalls: groups,
	}})
	if err != nil {
		return fmt.Errorf("filtering system calls: %w", err)
	}
	return nil
}

// ExecVMM confines this process to what the VM in dir needs and turns it into
// argv, its VMM, or, as it is, into what puts that into a jail. It returns only an error.
// The signal that ends the VMM with its shim belongs to a thread, and execve keeps that of
// the thread which calls it (prctl(2)), not that of the one that the shim has started.
func ExecVMM(dir string, argv []string) error {
	spec, err := readSpec(dir)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if spec.insideTap() {
		if err := handTap(spec.Network.Tap, spec.tapOwner()); err != nil {
			return err
		}
		if err := dropRights(); err != nil {
			return err
		}
	}
	if spec.Jail != nil { // the jailer's own work needs root
		return os.NewSyscallError("execve", unix.Exec(argv[0], argv, os.Environ()))
	}
	if err := Confine(dir, spec); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	return os.NewSyscallError("execve", unix.Exec(argv[0], argv, os.Environ()))
}
