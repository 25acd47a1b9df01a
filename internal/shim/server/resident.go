package server

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetStart gives back the program's pages that were read at its start. If some are needed again, the kernel reads
// them from the file, whose pages all shims share. Most belong to packages that a shim links but does not use.
// Mappings with a private page, such as the relocations of a linker, are kept.
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
	ours := false // the present mapping belongs to the program and is read-only
	lines := bufio.NewScanner(f)
	for lines.Scan() { // proc_pid_smaps(5): a line as in maps, then its details
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
