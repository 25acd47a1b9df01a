package firecracker

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// version is a version of Firecracker, without a suffix after the third number.
type version struct{ major, minor, patch int }

// minVersion is the first version that we start.
var minVersion = version{1, 12, 0}

// tried are the versions on which banger was run for real. 1.12.1 is the official program, and CI
// runs it. 1.15.1, 1.16.1 and 1.17.0-dev were built from source and run by hand on 28 November
// 2026, under emulated hardware virtualisation.
var tried = []version{{1, 12, 1}, {1, 15, 1}, {1, 16, 1}, {1, 17, 0}}

var versionPattern = regexp.MustCompile(`\bv?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})\b`)

// parseVersion finds a version in the output of `firecracker --version` or in the answer to GET /.
func parseVersion(text string) (version, error) {
	if len(text) > 4<<10 {
		text = text[:4<<10]
	}
	m := versionPattern.FindStringSubmatch(text)
	if m == nil {
		return version{}, fmt.Errorf("%.60q names no version of Firecracker", text)
	}
	var v version
	v.major, _ = strconv.Atoi(m[1]) // a few digits always fit
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

// The abilities of a version (CHANGELOG.md of Firecracker).

func (v version) appendsPCIOff() bool    { return v.atLeast(1, 13) } // to the command line, by itself
func (v version) hasFreePages() bool     { return v.atLeast(1, 14) } // hinting and reporting
func (v version) hasSerialLimit() bool   { return v.atLeast(1, 16) }
func (v version) hasNetworkMTU() bool    { return v.atLeast(1, 16) }
func (v version) hasVsockOverride() bool { return v.atLeast(1, 16) }
func (v version) hasClockRealtime() bool { return v.atLeast(1, 16) }
func (v version) hasBzImage() bool       { return v.atLeast(1, 17) }

// losesVsock reports whether a pause and a resume by the API, without a snapshot between them,
// break the vsock for ever (PR 6100 of Firecracker fixes it after 1.16.1).
func (v version) losesVsock() bool { return v == version{1, 16, 0} || v == version{1, 16, 1} }

// cutsFirst reports whether the first connection to a restored guest is accepted and then cut (PR
// 5882 of Firecracker fixes it in 1.16.0).
func (v version) cutsFirst() bool { return !v.atLeast(1, 16) }

// pciProblem returns why PCI must not be used, or "": root in a guest could write out of bounds
// (CVE-2026-5747: 1.13.0 to 1.14.3, and 1.15.0).
func (v version) pciProblem() string {
	if v.less(version{1, 14, 4}) || v == (version{1, 15, 0}) {
		return fmt.Sprintf("Firecracker %s lets a guest write out of bounds by virtio-pci (CVE-2026-5747)", v)
	}
	return ""
}

// Warning returns what a usable version lacks, and which of its faults banger works around. It
// returns "" if there is nothing to say.
func Warning(text string) string {
	v, err := parseVersion(text)
	if err != nil {
		return err.Error()
	}
	var list []string
	if !slices.Contains(tried, v) {
		list = append(list, "was never run with banger")
	}
	if !v.hasFreePages() {
		list = append(list, "gives the host no memory back that a guest has freed")
	}
	if !v.hasSerialLimit() {
		list = append(list, "does not limit how much a guest prints")
	}
	if v.cutsFirst() {
		list = append(list, "cuts the first connection to a restored VM, which banger makes again")
	}
	if v.losesVsock() {
		list = append(list, "loses its vsock when its API pauses and resumes a VM, so banger stops its process instead")
	}
	if len(list) == 0 {
		return ""
	}
	said := list[0]
	if last := len(list) - 1; last > 0 {
		said = strings.Join(list[:last], ", ") + " and " + list[last]
	}
	return fmt.Sprintf("version %s %s", v, said)
}
