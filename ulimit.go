package banger

import (
	"fmt"
	"maps"
	"slices"
)

// MaxOpenFiles is the maximum number of open files of one process in a VM (fs.nr_open of Linux), and what a process has
// without a Ulimit.
const MaxOpenFiles = 1 << 20

// ulimits are the limits of a process that docker's --ulimit knows, with their numbers (getrlimit(2), linux/amd64 and
// linux/arm64).
var ulimits = map[string]int{"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7,
	"memlock": 8, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15}

// Unlimited is the value of a limit that does not limit.
const Unlimited = -1

// Ulimit is a limit of each process in a VM (getrlimit(2)), in the unit of its kind: bytes, seconds or a number.
type Ulimit struct {
	Name string `json:"name"` // such as nofile
	Soft int64  `json:"soft"` // Unlimited, or at most Hard
	Hard int64  `json:"hard"`
}

// UlimitNames returns the names of all limits, in order.
func UlimitNames() []string { return slices.Sorted(maps.Keys(ulimits)) }

// Check returns an *Error of CodeInvalid if u is not known, or if the kernel would refuse it.
func (u Ulimit) Check() error {
	if _, ok := ulimits[u.Name]; !ok {
		return Errorf(CodeInvalid, "there is no limit %.80q, but %s", u.Name, either(UlimitNames()))
	}
	if u.Soft < Unlimited || u.Hard < Unlimited || u.Hard != Unlimited && (u.Soft == Unlimited || u.Soft > u.Hard) {
		return Errorf(CodeInvalid, "the limit %s is above its hard limit", u)
	}
	if u.Name == "nofile" && (u.Hard == Unlimited || u.Hard > MaxOpenFiles) {
		return Errorf(CodeInvalid, "the limit %s is above what the kernel allows, %d", u, MaxOpenFiles)
	}
	return nil
}

// Number returns the kernel's number of a limit that Check accepts.
func (u Ulimit) Number() int { return ulimits[u.Name] }

// String returns u in docker's form.
func (u Ulimit) String() string { return fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard) }
