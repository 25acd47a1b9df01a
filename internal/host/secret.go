package host

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HideArgument replaces the value of kv, which is KEY=VALUE, with stars wherever an argument of this process ends
// with kv. Afterwards /proc/PID/cmdline, which every user can read, no longer shows it. The program must use copies
// of its arguments, because the strings of os.Args are the memory that the kernel shows (proc_pid_cmdline(5)).
func HideArgument(kv string) {
	key, value, _ := strings.Cut(kv, "=")
	if key == "" || value == "" {
		return
	}
	for _, arg := range os.Args {
		if !strings.HasSuffix(arg, kv) {
			continue
		}
		shown := unsafe.Slice(unsafe.StringData(arg), len(arg))
		for i := len(arg) - len(value); i < len(arg); i++ {
			shown[i] = '*'
		}
	}
}

// KeepMemory keeps the memory of this process out of core files and hides it from other processes of the same user,
// because it may contain secret values (prctl(2), PR_SET_DUMPABLE; core(5)).
func KeepMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	limit.Cur = 0 // programs that it starts may still want core files
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return os.NewSyscallError("setrlimit", err)
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
