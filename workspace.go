package banger

import "time"

// Workspace is a tree of the host in a VM: a baseline that never changes, and what was changed on it there.
type Workspace struct {
	ID       string    `json:"id"`               // 32 hex digits, chosen by the client
	Name     string    `json:"name"`             // unique in the VM
	Path     string    `json:"path"`             // where the VM has it; absolute and clean
	Baseline string    `json:"baseline"`         // what it is based on, in words of the client; printable
	Source   string    `json:"source,omitempty"` // where the client had it from, for a person
	Created  time.Time `json:"created,omitzero"` // in the VM
	UID      uint32    `json:"uid"`              // of the user who works in it
	GID      uint32    `json:"gid"`              //
	Error    string    `json:"error,omitempty"`  // why it is not mounted
	Stored   bool      `json:"stored,omitempty"` // the VM does not run; its next start mounts the workspace
	InOld    int       `json:"in_old,omitempty"` // of a reset: processes that are still in the tree from before
}

// WorkspaceReport is the end of the changes of a workspace: what was sent, and what was left out that is a change.
type WorkspaceReport struct {
	Entries int64    `json:"entries"`
	Bytes   int64    `json:"bytes"`           // of content
	Skipped int64    `json:"skipped"`         // files that were left out or were not read whole
	Notes   []string `json:"notes,omitempty"` // why, of the first of them
}

// CheckWorkspace returns an *Error of CodeInvalid unless name can be the name of a workspace.
func CheckWorkspace(name string) error { return checkLabel(name, "name of a workspace") }
