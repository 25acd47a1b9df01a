package server

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetStart gives back the pages of the program that its start has read: the kernel
// brings those that are needed again from the file, where all shims share them. Most
// belong to packages that a shim has by name only. Mappings that hold a page of our own,
// as a linker's relocations are, stay.
func forgetStart() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	var from, to uintptr
	ours := false // the mapping that is being read is of the program, and read-only
	lines := bufio.NewScanner(f)
	for lines.Scan() { // proc_pid_smaps(5): a line as in maps, then what it holds
		line := lines.Text()
		var a, b uintptr
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &a, &b, &rights); n == 3 {
			from, to = a, b
			ours = strings.HasSuffix(line, " "+program) && !strings.Contains(rights, "w")
			continue
		}
		if kept, ok := strings.CutPrefix(line, "Anonymous:"); !ok || !ours || strings.TrimSpace(kept) != "0 kB" {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return lines.Err()
}
