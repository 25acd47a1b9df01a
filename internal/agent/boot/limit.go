package boot

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/console"
)

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
		{"open files", unix.RLIMIT_NOFILE, syscall.Rlimit{Cur: banger.MaxOpenFiles, Max: banger.MaxOpenFiles}},
		{"processes", unix.RLIMIT_NPROC, syscall.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}},
	} {
		if err := syscall.Setrlimit(l.resource, &l.limit); err != nil {
			console.Warn(fmt.Errorf("raising the limit of %s: %w", l.what, err))
		}
	}
}
