package banger

import (
	"strings"
	"time"
)

// Snapshot is the disk of a VM at one instant and, if the VM ran or was suspended, its memory. VMs go on from it.
type Snapshot struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	VM      string    `json:"vm"`               // id of the VM that it was taken of
	VMName  string    `json:"vm_name"`          // the VM's name at that time
	Parent  string    `json:"parent,omitempty"` // id of the snapshot that the VM had come from
	Created time.Time `json:"created"`
	// Automatic snapshots hold the state that a restore has replaced.
	Automatic bool   `json:"automatic,omitempty"`
	Memory    bool   `json:"memory"`        // without it, VMs boot from the disk
	Paused    int64  `json:"paused_ms"`     // how long the VM stood still for it
	Image     string `json:"image"`         // reference
	VMM       string `json:"vmm,omitempty"` // name and version
	Layer     string `json:"layer"`         // id of what the disk had
	Size      int64  `json:"size"`          // room on the host's disk in bytes, without what it shares with others
}

// SnapshotUser begins the name of a snapshot where it may be that of a VM: VMs have names without spaces.
const SnapshotUser = "snapshot "

// UserOf returns the end of a sentence about a user of an image or a kernel: the name of a VM, or that of a snapshot
// after SnapshotUser.
func UserOf(name string) string {
	if strings.HasPrefix(name, SnapshotUser) {
		return "the " + name
	}
	return "VM " + name
}

// UsedError returns the error about a thing that cannot be removed because of a user, as UserOf takes it.
func UsedError(thing, user string) *Error {
	command := "banger rm " + user
	if strings.HasPrefix(user, SnapshotUser) {
		command = "banger snapshot rm " + strings.TrimPrefix(user, SnapshotUser)
	}
	return Errorf(CodeConflict, "%s is used by %s", thing, UserOf(user)).WithHint("remove it first: %s", command)
}

// CheckSnapshot returns an *Error of CodeInvalid unless name can be the name of a snapshot.
func CheckSnapshot(name string) error { return checkLabel(name, "name of a snapshot") }

// Fork is what a user wants of VMs that go on from a VM or a snapshot: the body of POST /v1/forks.
type Fork struct {
	From string `json:"from"` // a VM or a snapshot, by name or id; a VM gets a snapshot that goes with the last fork
	// Name is that of the VM, or a pattern with {n}, which stands for its number. "" makes names of the source's.
	Name       string `json:"name,omitempty"`
	Number     int    `json:"number,omitempty"` // of VMs; 0 means 1
	AutoRemove bool   `json:"auto_remove,omitempty"`
	// WithSecrets allows that the VMs have the secrets of the source.
	WithSecrets bool `json:"with_secrets,omitempty"`
}

// MaxForks is the maximum number of VMs that one fork makes.
const MaxForks = 100

// Check returns an *Error of CodeInvalid unless f can be carried out.
func (f Fork) Check() error {
	switch {
	case f.From == "":
		return Errorf(CodeInvalid, "from is empty, but must name a VM or a snapshot")
	case f.Number < 0 || f.Number > MaxForks:
		return Errorf(CodeInvalid, "number is %d, but must be 1 to %d", f.Number, MaxForks)
	case f.Number > 1 && f.Name != "" && !strings.Contains(f.Name, "{n}"):
		return Errorf(CodeInvalid, "name is %.80q, but several VMs need a pattern with {n}", f.Name).
			WithHint("for example: --name %s-{n}", f.Name)
	case f.Name == "":
		return nil
	}
	return CheckName(strings.ReplaceAll(f.Name, "{n}", "1"))
}
