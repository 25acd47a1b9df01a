package firecracker

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// hostSavesTime reports whether a snapshot that is taken on this host contains the time of day.
func hostSavesTime() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	source, _ := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	return savesTime(runtime.GOARCH, unix.ByteSliceToString(u.Release[:]), strings.TrimSpace(string(source)))
}

// savesTime reports whether KVM saves the time of day with a guest's clock (KVM_CLOCK_REALTIME).
// KVM on x86 does since Linux 5.16, while the host's clock source is the TSC. A load that asks for
// the time of day fails if the snapshot has none. The agent sets the clock in any case.
func savesTime(arch, release, source string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return arch == "amd64" && source == "tsc" && (major > 5 || major == 5 && minor >= 16)
}
