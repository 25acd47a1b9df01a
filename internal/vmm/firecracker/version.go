package firecracker

import (
	"fmt"
	"regexp"
	"strconv"
)

// version is Firecracker's, without what may follow the third number.
type version struct{ major, minor, patch int }

// minVersion is the first one that we start; testedFrom and testedTo bound those whose
// API and faults this driver was written against.
var (
	minVersion = version{1, 13, 0}
	testedFrom = version{1, 15, 0}
	testedTo   = version{1, 16, 1}
)

var versionPattern = regexp.MustCompile(`\bv?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})\b`)

// parseVersion finds a version in what `firecracker --version` prints or GET / says.
func parseVersion(text string) (version, error) {
	if len(text) > 4<<10 {
		text = text[:4<<10]
	}
	m := versionPattern.FindStringSubmatch(text)
	if m == nil {
		return version{}, fmt.Errorf("%.60q names no version of Firecracker", text)
	}
	var v version
	v.major, _ = strconv.Atoi(m[1]) // digits, few enough
	v.minor, _ = strconv.Atoi(m[2])
	v.patch, _ = strconv.Atoi(m[3])
	return v, nil
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

func (v version) less(w version) bool {
	if v.major != w.major {
		return v.major < w.major
	}
	if v.minor != w.minor {
		return v.minor < w.minor
	}
	return v.patch < w.patch
}

func (v version) atLeast(major, minor int) bool { return !v.less(version{major, minor, 0}) }

// What a version has (CHANGELOG.md of Firecracker).

func (v version) hasFreePages() bool     { return v.atLeast(1, 14) } // hinting and reporting
func (v version) hasSerialLimit() bool   { return v.atLeast(1, 16) }
func (v version) hasNetworkMTU() bool    { return v.atLeast(1, 16) }
func (v version) hasVsockOverride() bool { return v.atLeast(1, 16) }
func (v version) hasClockRealtime() bool { return v.atLeast(1, 16) }
func (v version) hasBzImage() bool       { return v.atLeast(1, 17) }

// pciProblem says why PCI must not be used: a guest's root could write out of bounds
// (CVE-2026-5747: 1.13.0 to 1.14.3, and 1.15.0).
func (v version) pciProblem() string {
	if v.less(version{1, 14, 4}) || v == (version{1, 15, 0}) {
		return fmt.Sprintf("Firecracker %s lets a guest write out of bounds by virtio-pci (CVE-2026-5747)", v)
	}
	return ""
}

// Warning says what is doubtful about a version that can be used; "" is nothing.
func Warning(text string) string {
	v, err := parseVersion(text)
	switch {
	case err != nil:
		return err.Error()
	case v.less(testedFrom) || testedTo.less(v):
		return fmt.Sprintf("version %s is outside of the tested range, %s to %s", v, testedFrom, testedTo)
	case v.less(testedTo):
		return fmt.Sprintf("version %s may lose its vsock in a snapshot, which %s mends", v, testedTo)
	}
	return ""
}
