package qemu

import (
	"fmt"
	"regexp"
	"strconv"
)

type version struct {
	major, minor int
	text         string
}

var versionRE = regexp.MustCompile(`version (\d+)\.(\d+)(\S*)`)

// minVersion is the first QEMU with -netdev stream, which accepts an open socket. Older versions
// accept everything else that the driver hands over (-chardev socket,fd=, -add-fd, chardev-change).
var minVersion = version{major: 7, minor: 2}

func parseVersion(out string) (version, error) {
	m := versionRE.FindStringSubmatch(out)
	if m == nil {
		return version{}, fmt.Errorf("cannot read a version in %.80q", out)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return version{major: major, minor: minor, text: m[1] + "." + m[2] + m[3]}, nil
}

func (v version) less(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

// machine returns the number of the versioned machine type. The type is pinned: a later QEMU then
// presents the same hardware to a guest that was suspended under this version.
func (v version) machine() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }
