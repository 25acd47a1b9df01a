package wire

import "banger"

// Bodies of requests that consist of more than one noun.
type (
	PullRequest struct {
		Reference string `json:"reference"`
		Platform  string `json:"platform,omitempty"` // os/arch[/variant]; "" means this machine's
	}
	PushRequest struct {
		Reference string `json:"reference"`
	}
	CommitRequest struct {
		Target string `json:"target"`
		banger.CommitNote
	}
	RegisterRequest struct {
		Name   string `json:"name"`
		Rootfs string `json:"rootfs"` // absolute path of an ext4 file of the host
		Kernel string `json:"kernel,omitempty"`
	}
	// SnapshotRequest names a snapshot: a new one, where "" is allowed, or one to go back to.
	SnapshotRequest struct {
		Name string `json:"name,omitempty"`
	}
	PromoteRequest struct {
		Reference string `json:"reference"`
	}
	TagRequest struct {
		Source string `json:"source"`
		Target string `json:"target"`
	}
	PruneRequest struct {
		All    bool `json:"all,omitempty"`     // also images that have a name but no VM
		DryRun bool `json:"dry_run,omitempty"` // only report what would be removed
	}
	ImportRequest struct {
		Name    string `json:"name,omitempty"`
		Image   string `json:"image,omitempty"`
		Modules string `json:"modules,omitempty"`
	}
	RenameRequest struct {
		Name string `json:"name"`
	}
)
