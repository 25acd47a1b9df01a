package host

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strings"
)

// levels are the flags of /proc/cpuinfo that a CPU of each level of x86-64 has, beside those of the level before
// (x86-64 psABI, section 3.1.1). The kernel calls LZCNT abm, and shows OSXSAVE by xsave.
var levels = [][]string{
	2: {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
	3: {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
	4: {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
}

// EmulatedLevel is the level of the CPU that emulated guests see.
const EmulatedLevel = 3

// GuestLevel returns the level of x86-64, 1 to 4, of the CPU that guests see: the host's under KVM.
func GuestLevel(kvm bool) int {
	if !kvm {
		return EmulatedLevel
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return 1
	}
	defer f.Close()
	return levelOf(f)
}

// levelOf returns the level of the first CPU of a cpuinfo file.
func levelOf(cpuinfo io.Reader) int {
	lines := bufio.NewScanner(cpuinfo)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		flags := strings.Fields(value)
		for level := 2; level < len(levels); level++ {
			for _, flag := range levels[level] {
				if !slices.Contains(flags, flag) {
					return level - 1
				}
			}
		}
		return len(levels) - 1
	}
	return 1
}
