package command

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger"
)

// confinedName is argv[0] of a process of this program that confines itself and then becomes a command.
const confinedName = "banger-confined"

// confinedReport is the descriptor to which such a process writes the kernel's error if it cannot become the command.
const confinedReport = 3

// restrictions are what a process does to itself before it becomes a command. Its groups are already those of the
// command, but its user is still root, which may raise a limit.
type restrictions struct {
	UID             uint32
	Ulimits         []banger.Ulimit
	Drop            []int // numbers of capabilities
	NoNewPrivileges bool
}

// IsConfined reports whether this process is to become a confined command.
func IsConfined(args []string) bool { return len(args) > 3 && args[0] == confinedName }

// RunConfined turns this process into the command in args. It returns only after a failure.
func RunConfined(args []string) {
	runtime.LockOSThread() // limits aside, the kernel keeps all of this for each thread
	unix.CloseOnExec(confinedReport)
	var r restrictions
	err := json.Unmarshal([]byte(args[1]), &r)
	if err == nil {
		err = r.become(args[2], args[3:])
	}
	errno, ok := err.(syscall.Errno)
	if !ok {
		errno = unix.EINVAL
	}
	unix.Write(confinedReport, []byte(strconv.Itoa(int(errno))))
	os.Exit(1)
}

// become restricts this process and executes file. Nothing is allocated after the first limit, because the limit may
// forbid that.
func (r restrictions) become(file string, args []string) error {
	path, err := syscall.BytePtrFromString(file)
	if err != nil {
		return err
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	for _, c := range r.Drop {
		// The kernel may be older than a capability.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
			return err
		}
	}
	if r.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	limits := make([]unix.Rlimit, len(r.Ulimits))
	for i, u := range r.Ulimits { // Unlimited is RLIM_INFINITY
		limits[i] = unix.Rlimit{Cur: uint64(u.Soft), Max: uint64(u.Hard)}
	}
	for i, u := range r.Ulimits {
		_, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(u.Number()),
			uintptr(unsafe.Pointer(&limits[i])), 0, 0, 0)
		if errno != 0 {
			return errno
		}
	}
	if r.UID != 0 {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETUID, uintptr(r.UID), 0, 0); errno != 0 {
			return errno
		}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
	return errno
}

// confined is a command that starts as a process of this program, which confines itself first.
type confined struct {
	report, reported *os.File // a pipe whose writing end the process has
}

// confine changes what attr starts into a process that confines itself before it becomes file. It returns the new
// program and arguments. The caller calls result after the fork.
func confine(c banger.Confinement, user User, file string, args []string,
	attr *syscall.ProcAttr) (_ *confined, _ string, _ []string, err error) {
	r := restrictions{UID: user.UID, Ulimits: c.Ulimits, NoNewPrivileges: c.NoNewPrivileges}
	if r.Drop, err = banger.DroppedCapabilities(c.CapDrop, c.CapAdd); err != nil {
		return nil, "", nil, err
	}
	setting, err := json.Marshal(r)
	if err != nil {
		return nil, "", nil, err
	}
	p := &confined{}
	if p.reported, p.report, err = os.Pipe(); err != nil {
		return nil, "", nil, banger.Errorf(banger.CodeCannotRun, "no pipe for the command: %w", err)
	}
	if attr.Sys.Credential != nil {
		attr.Sys.Credential.Uid = 0
	}
	attr.Files = append(attr.Files[:confinedReport:confinedReport], p.report.Fd())
	return p, "/proc/self/exe", append([]string{confinedName, string(setting), file}, args...), nil
}

// result waits until the process has become the command, and returns the kernel's error if it cannot.
func (p *confined) result(forked error) error {
	p.report.Close()
	defer p.reported.Close()
	if forked != nil {
		return forked
	}
	text := make([]byte, 16)
	n, _ := p.reported.Read(text)
	if n == 0 { // the kernel has closed the writing end
		return nil
	}
	errno, err := strconv.Atoi(string(text[:n]))
	if err != nil {
		return fmt.Errorf("the agent's own process answered %q", text[:n])
	}
	return syscall.Errno(errno)
}
