package wire

import "time"

// Version is the answer to GET /v1/version.
type Version struct {
	Version string    `json:"version"`
	API     int       `json:"api"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	State   string    `json:"state,omitempty"` // the daemon's state directory
	// Problems lists what the daemon could not repair when it started, one sentence each.
	Problems []string `json:"problems,omitempty"`

	SQLite string `json:"sqlite,omitempty"`
	VMM    string `json:"vmm,omitempty"` // what new VMs run on, or why no VM can run
	KVM    string `json:"kvm,omitempty"` // "usable", or why it is not

	NestedProblem string `json:"nested_problem,omitempty"` // why guests cannot run VMs

	VMMs []VMM `json:"vmms,omitempty"` // all VMMs that banger knows, the preferred ones first

	// DNS is the address that answers the names of VMs. DNSProblem says why there is no such address, or why it is not
	// the intended one.
	DNS        string `json:"dns,omitempty"`
	DNSProblem string `json:"dns_problem,omitempty"`

	// Limits says where VMs have control groups. LimitsProblem says what those do not limit, or why VMs have none.
	Limits        string `json:"limits,omitempty"`
	LimitsProblem string `json:"limits_problem,omitempty"`
}

// KVMUsable is Version.KVM where guests are executed in hardware.
const KVMUsable = "usable"

// VMM describes the state of one VMM on the daemon's host.
type VMM struct {
	Name    string `json:"name"`
	Path    string `json:"path,omitempty"`
	Version string `json:"version,omitempty"`
	Problem string `json:"problem,omitempty"` // why it cannot be used
	Warning string `json:"warning,omitempty"` // a doubt about a usable VMM
	Fix     string `json:"fix,omitempty"`

	Confined string `json:"confined,omitempty"` // what confines it
}

// UI is where the web UI is.
type UI struct {
	URL string `json:"url"` // with a token, which works once and for a minute
}

// Check is one line of a report on what the host can do.
type Check struct {
	Name   string `json:"name"`
	Result string `json:"result"` // PASS, WARN or FAIL
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // what to do about it
}

// The results of checks.
const (
	Pass = "PASS" // nothing is wrong
	Warn = "WARN" // something does not work as well as it could
	Fail = "FAIL" // banger cannot run VMs
)

// Usage is what things of one kind take on the disk, with the names of docker's fields.
type Usage struct {
	Type        string `json:"type"`
	Total       int    `json:"total"`
	Active      int    `json:"active"`
	Size        int64  `json:"size"`        // bytes on the disk
	Reclaimable int64  `json:"reclaimable"` // bytes that system prune --all gives back
	// Name and Shared are of one VM or one snapshot: Size is what it takes alone, and Shared what the layers of its disk
	// take, which others may need too.
	Name   string `json:"name,omitempty"`
	Shared int64  `json:"shared,omitempty"`
}
