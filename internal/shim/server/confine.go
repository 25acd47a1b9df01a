package server

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"banger/internal/network"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// systemDirs hold programs, their libraries and firmware, and the kernel's information about itself. /proc shows the
// names of other processes, but landlock denies access to their memory and environment (landlock(7), "Ptrace
// restrictions").
var systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/proc",
	"/sys/devices/system"}

// deniedCalls are of no use in a shim or a VMM, but an escape would try them next: other processes, namespaces,
// mounts, and rarely used parts of the kernel. They fail with EPERM.
var deniedCalls = []string{
	"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
	"unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig",
	"fsmount", "fspick", "mount_setattr",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct",
	"quotactl",
	"bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "open_by_handle_at", "name_to_handle_at",
	"settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "syslog", "vhangup",
	"personality",
	"io_uring_setup", "io_uring_enter", "io_uring_register",
}

// resolverDirs hold the file that names the host's resolvers, also where its symlink leads, and the files that
// replace it.
var resolverDirs = []string{"/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman"}

// Confine takes away from this process, which will become the VMM of spec, every right that the VM does not need:
// files except those that it was handed, sockets (socketRules), gaining privileges, and deniedCalls (landlock(7),
// seccomp(2)). This cannot be undone. If the kernel has no landlock or an older one, Confine does what that kernel
// allows. A VMM that makes sockets makes them in its working directory.
func Confine(spec shim.Spec) error {
	handed, err := handedFiles()
	if err != nil {
		return fmt.Errorf("confining the VMM: %w", err)
	}
	rules := append(commonFiles(plan{spec}), handed...)
	if spec.VM.Sockets {
		rules = append(rules, landlock.PathAccess(ownSockets, "."))
	}
	// Not V6, which restricts signals: each thread would be a domain of its own, which could not kill the VMM that
	// another thread has started.
	if err := landlock.V5.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("confining the VMM: %w", err)
	}
	groups := append(socketRules(spec.VM.Sockets), seccomp.SyscallGroup{Action: noSuchCall, Names: []string{"clone3"}},
		refuse(seccomp.NameWithConditions{Name: "clone", Conditions: []seccomp.Condition{
			{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_NEWUSER}}}))
	if !spec.VM.Sockets { // Firecracker's own filter forbids all signals
		groups = append(groups, signalRules(os.Getpid())...)
	}
	return filter(groups...)
}

// refuse returns a group of calls that fail with EPERM.
func refuse(calls ...seccomp.NameWithConditions) seccomp.SyscallGroup {
	return seccomp.SyscallGroup{Action: seccomp.ActionErrno, NamesWithCondtions: calls}
}

// signalRules refuse signals to all processes except pid. The other processes of an ordinary user are the daemon,
// shims, and everything else that this user runs.
func signalRules(pid int) []seccomp.SyscallGroup {
	return []seccomp.SyscallGroup{
		{Action: seccomp.ActionErrno,
			Names: []string{"kill", "tkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo"}},
		refuse(except("tgkill", 0, uint64(pid))),
	}
}

// except returns the condition that an argument of a call has another value than the given one.
func except(call string, argument uint32, value uint64) seccomp.NameWithConditions {
	other := seccomp.Condition{Argument: argument, Operation: seccomp.NotEqual, Value: value}
	return seccomp.NameWithConditions{Name: call, Conditions: []seccomp.Condition{other}}
}

// ownLimits allow a process to change only its own limits and scheduling.
var ownLimits = refuse(except("prlimit64", 0, 0), except("sched_setaffinity", 0, 0), except("sched_setparam", 0, 0),
	except("sched_setscheduler", 0, 0), except("sched_setattr", 0, 0), except("setpriority", 1, 0),
	except("ioprio_set", 1, 0))

// Rights of a VMM to its own sockets and pipes, and of a shim to its own files. They exclude making directories,
// symlinks and devices, which could lead root to another place.
const (
	ownSockets = landlocksys.AccessFSReadDir | landlocksys.AccessFSReadFile | writeFile |
		landlocksys.AccessFSMakeSock | landlocksys.AccessFSRemoveFile
	ownFiles = ownSockets | landlocksys.AccessFSMakeReg | landlocksys.AccessFSMakeFifo
)

// socketRules refuse socket calls of a VMM. A VMM that makes no sockets can use only those that it was handed. A VMM
// that makes its own can listen on them, but can connect to nothing: neither to a shim, perhaps of another VM, nor to
// any other service of its user. It cannot make sockets that send without a connection, nor pairs of them.
func socketRules(makes bool) []seccomp.SyscallGroup {
	if !makes {
		return []seccomp.SyscallGroup{{Action: seccomp.ActionErrno,
			Names: []string{"socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"}}}
	}
	rules := seccomp.SyscallGroup{Action: seccomp.ActionErrno, Names: []string{"connect"}}
	for _, call := range []string{"socket", "socketpair"} {
		var streams []seccomp.Condition
		for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
			kind := unix.SOCK_STREAM | flags
			streams = append(streams, seccomp.Condition{Argument: 1, Operation: seccomp.NotEqual, Value: kind})
		}
		rules.NamesWithCondtions = append(rules.NamesWithCondtions,
			except(call, 0, unix.AF_UNIX), seccomp.NameWithConditions{Name: call, Conditions: streams})
	}
	return []seccomp.SyscallGroup{rules}
}

// handedFiles returns the rules for files of which this process has a descriptor. It may open them again with the
// same rights.
func handedFiles() ([]landlock.Rule, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var rules []landlock.Rule
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if rule, ok := handedFile(fd); ok {
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

func handedFile(fd int) (landlock.Rule, bool) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || isMemory(fd) {
		return nil, false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, false
	}
	path := shim.Descriptor(fd)
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return landlock.ROFiles(path), true
	}
	return landlock.RWFiles(path), true
}

// isMemory reports whether fd is memory without a path (memfd_create(2)). Landlock allows it for every process with a
// descriptor of it, and accepts no rule for it.
func isMemory(fd int) bool {
	name, err := os.Readlink(shim.Descriptor(fd))
	return err == nil && strings.HasPrefix(name, "/memfd:") // only root could make such a file in the root directory
}

// Confinement says by which means Confine confines on this kernel.
func Confinement() string {
	if abi, err := landlocksys.LandlockGetABIVersion(); err != nil || abi < 1 {
		return "seccomp alone (this kernel has no landlock, or it is not in the kernel's argument lsm=)"
	}
	return "landlock and seccomp"
}

// noSuchCall fails with ENOSYS. seccomp cannot inspect the flags of clone3, which are in memory. ENOSYS makes libc
// fall back to clone (clone(2)), whose flags can be filtered.
const noSuchCall = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)

// confineSelf takes away from the shim what neither it nor its VMM needs. state, run and roots are the VM's own
// directories. With a network, the shim keeps the use of sockets and the files that name the host's resolvers.
func confineSelf(spec plan, state, run string, roots ...string) error {
	handed, err := handedFiles()
	if err != nil {
		return fmt.Errorf("confining the shim: %w", err)
	}
	rules := append(append(commonFiles(spec), handed...),
		landlock.PathAccess(ownFiles, append(roots, state, run)...),
		landlock.ROFiles("/proc/self/exe")) // the shim starts the VMM by this file
	if spec.insideTap() {
		// The shim writes the ids of the VMM's user namespace, and the settings of its network, to files that do not exist
		// yet. Landlock still denies access to the memory of other processes, and the kernel lets only root write a setting
		// of the host.
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

// commonFiles returns the rules for files that each shim and each VMM may read and write, besides those that it was
// handed.
func commonFiles(spec plan) []landlock.Rule {
	read := slices.Clone(spec.VM.Reads)
	if spec.VM.Program != "" {
		read = append(read, spec.VM.Program)
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
		landlock.RWFiles(devices...).WithIoctlDev().IgnoreIfMissing(),
	}
}

// writeFile is the right to change a file in every way (landlock(7)).
const writeFile = landlocksys.AccessFSWriteFile | landlocksys.AccessFSTruncate

// insideTap reports whether the VMM opens a tap in namespaces of its own.
func (s plan) insideTap() bool {
	return s.Network != nil && s.Network.Attachment() == shim.AttachPrivate
}

// filter refuses deniedCalls, the groups in more, and all calls in the numbering of another processor.
func filter(more ...seccomp.SyscallGroup) error {
	groups := append([]seccomp.SyscallGroup{{Names: deniedCalls, Action: seccomp.ActionErrno}, ownLimits}, more...)
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow, Syscalls: groups,
	}})
	if err == nil {
		err = nativeCalls()
	}
	if err != nil {
		return fmt.Errorf("filtering system calls: %w", err)
	}
	return nil
}

// wrapperSpec is the wrapper's descriptor of the spec. The descriptor of its tap comes next.
const wrapperSpec = 3

// ExecVMM confines this process to what its VM needs and executes argv, its VMM. With a jail, argv is the jailer,
// which is not confined here. ExecVMM returns only on an error. It sets the signal that ends the VMM with its shim,
// because that signal belongs to a thread, and execve keeps the signal of the calling thread (prctl(2)), not that of
// the thread which the shim has started.
func ExecVMM(argv []string) error {
	file := os.NewFile(wrapperSpec, shim.SpecFile)
	spec, err := readSpec(file)
	file.Close()
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
	if spec.Jail != nil { // the jailer needs root for its own work
		return os.NewSyscallError("execve", unix.Exec(argv[0], argv, os.Environ()))
	}
	if err := Confine(spec.Spec); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	return &os.PathError{Op: "execve", Path: argv[0], Err: unix.Exec(argv[0], argv, os.Environ())}
}
