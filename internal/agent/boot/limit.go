package boot

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
)

// maxFiles is the kernel's bound of open files of one process (fs.nr_open), and what
// container engines give.
const maxFiles = 1 << 20

// raiseLimits gives this process, and all commands, more than the kernel's
// own limits: open files as in a container, and as many processes as the memory of the
// guest has room for (kernel.threads-max), instead of half of them. The limits are those
// of package syscall, which otherwise restores the earlier limit of files in children.
func raiseLimits() {
	for _, l := range []struct {
		what     string
		resource int
		limit    syscall.Rlimit
	}{
		{"open files", unix.RLIMIT_NOFILE, syscall.Rlimit{Cur: maxFiles, Max: maxFiles}},
		{"processes", unix.RLIMIT_NPROC, syscall.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}},
	} {
		if err := syscall.Setrlimit(l.resource, &l.limit); err != nil {
			console.Warn(fmt.Errorf("raising the limit of %s: %w", l.what, err))
		}
	}
}
