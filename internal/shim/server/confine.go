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
// every right that the VM does not need: files other than those that it was handed, sockets
// (socketRules), gaining privileges, and deniedCalls (landlock(7), seccomp(2)). It
// cannot be undone. On a kernel without landlock, or with an older one, it does
// what the kernel can. A VMM that makes sockets makes them in its working directory.
func Confine(spec shim.Spec) error {
	handed, err := handedFiles()
	if err != nil {
		return fmt.Errorf("confining the VMM: %w", err)
	}
	rules := append(commonFiles(plan{spec}), handed...)
	if spec.VM.Sockets {
		rules = append(rules, landlock.PathAccess(ownSockets, "."))
	}
	// Not V6: it scopes signals, and each thread would be a domain of its own that
	// may not kill the VMM which another thread has started.
	if err := landlock.V5.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("confining the VMM: %w", err)
	}
	groups := append(socketRules(spec.VM.Sockets), seccomp.SyscallGroup{Action: noSuchCall, Names: []string{"clone3"}},
		refuse(seccomp.NameWithConditions{Name: "clone", Conditions: []seccomp.Condition{
			{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_NEWUSER}}}))
	if !spec.VM.Sockets { // Firecracker's own filter lets it send no signal
		groups = append(groups, signalRules(os.Getpid())...)
	}
	return filter(groups...)
}

// refuse makes a group of calls that answer EPERM.
func refuse(calls ...seccomp.NameWithConditions) seccomp.SyscallGroup {
	return seccomp.SyscallGroup{Action: seccomp.ActionErrno, NamesWithCondtions: calls}
}

// signalRules refuse signals to all processes but pid: those of an ordinary user are the daemon,
// shims, and all else that runs for that user.
func signalRules(pid int) []seccomp.SyscallGroup {
	return []seccomp.SyscallGroup{
		{Action: seccomp.ActionErrno,
			Names: []string{"kill", "tkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo"}},
		refuse(except("tgkill", 0, uint64(pid))),
	}
}

// except refuses a call whose argument has another value.
func except(call string, argument uint32, value uint64) seccomp.NameWithConditions {
	other := seccomp.Condition{Argument: argument, Operation: seccomp.NotEqual, Value: value}
	return seccomp.NameWithConditions{Name: call, Conditions: []seccomp.Condition{other}}
}

// ownLimits let a process change no limit and no place in the scheduler but its own.
var ownLimits = refuse(except("prlimit64", 0, 0), except("sched_setaffinity", 0, 0), except("sched_setparam", 0, 0),
	except("sched_setscheduler", 0, 0), except("sched_setattr", 0, 0), except("setpriority", 1, 0), except("ioprio_set", 1, 0))

// What landlock lets a VMM do with its own sockets and pipes, and a shim with its own files.
// Nobody makes a directory, a symlink or a device, which would lead root elsewhere.
const (
	ownSockets = landlocksys.AccessFSReadDir | landlocksys.AccessFSReadFile | writeFile |
		landlocksys.AccessFSMakeSock | landlocksys.AccessFSRemoveFile
	ownFiles = ownSockets | landlocksys.AccessFSMakeReg | landlocksys.AccessFSMakeFifo
)

// socketRules refuse the sockets of a VMM. One that makes none has what it was handed, and
// reaches nobody else. One that makes its own waits in them for others, and connects to nobody:
// neither to a shim, whose VM is another's perhaps, nor to any service of its user. Of
// sockets that need no connection to send something it gets none, nor pairs of such.
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

// handedFiles are the rules for files of which this process has a shim.Descriptor. It may open them
// again as they are open.
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

// isMemory reports whether fd is of memory without a path (memfd_create(2)), which landlock leaves
// to each process that has a shim.Descriptor of it, and for which it takes no rule.
func isMemory(fd int) bool {
	name, err := os.Readlink(shim.Descriptor(fd))
	return err == nil && strings.HasPrefix(name, "/memfd:") // nobody makes files in the root directory but root
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

// confineSelf takes away from the shim what neither it nor its VMM needs. state, run and roots
// are directories of the VM's own. With a network it keeps the host's sockets and the files that
// name its resolvers.
func confineSelf(spec plan, state, run string, roots ...string) error {
	handed, err := handedFiles()
	if err != nil {
		return fmt.Errorf("confining the shim: %w", err)
	}
	rules := append(append(commonFiles(spec), handed...),
		landlock.PathAccess(ownFiles, append(roots, state, run)...),
		landlock.ROFiles("/proc/self/exe")) // it starts the VMM through itself
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

// commonFiles are what each shim and each VMM may read and write, beside what it was handed.
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

// writeFile is the right to write to a file, all of it (landlock(7)).
const writeFile = landlocksys.AccessFSWriteFile | landlocksys.AccessFSTruncate

// insideTap says that the VMM opens a tap in namespaces of its own.
func (s plan) insideTap() bool {
	return s.Network != nil && s.Network.Attachment() == shim.AttachPrivate
}

// filter refuses deniedCalls and what more groups say, and all calls by which the numbers of
// another processor mean something else.
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

// wrapperSpec is the wrapper's shim.Descriptor of the spec; its tap comes next.
const wrapperSpec = 3

// ExecVMM confines this process to what its VM needs and turns it into
// argv, its VMM, or, as it is, into what puts that into a jail. It returns only an error.
// The signal that ends the VMM with its shim belongs to a thread, and execve keeps that of
// the thread which calls it (prctl(2)), not that of the one that the shim has started.
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
	if spec.Jail != nil { // the jailer's own work needs root
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
