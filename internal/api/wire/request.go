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
	// CreateRequest is what a user asks for, with the values of the VM's secrets, which nothing stores, shows or logs.
	CreateRequest struct {
		banger.Spec
		Secrets map[string][]byte `json:"secrets,omitempty"` // by name; base64
	}
	// SnapshotRequest names a snapshot: a new one, where "" is allowed, or one to go back to.
	SnapshotRequest struct {
		Name        string `json:"name,omitempty"`
		WithSecrets bool   `json:"with_secrets,omitempty"` // the VM may have secrets
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
	// OnceRequest asks that a rule counts for a time.
	OnceRequest struct {
		Rule    banger.Rule `json:"rule"`
		Seconds *int        `json:"seconds,omitempty"` // 1 to 3600; default: 300
	}
	WorkspaceRequest struct {
		ID       string `json:"id"`               // 32 hex digits, which no other workspace of the VM has
		Name     string `json:"name"`             // as of a session
		Path     string `json:"path"`             // absolute and clean; made if it is missing
		Baseline string `json:"baseline"`         // what it is based on: 1 to 128 printable bytes
		Source   string `json:"source,omitempty"` // where the client has it from, for a person; printable
		User     string `json:"user,omitempty"`   // who works in it, as of an exec; "" means the VM's user
	}
	BaselineRequest struct {
		Baseline string   `json:"baseline"`          // what the workspace is based on from now on
		Removed  [][]byte `json:"removed,omitempty"` // paths of files in it that go first; base64
	}
	ChangesRequest struct {
		Part   string `json:"part,omitempty"`   // git: only what is below directories called .git; tree: only the rest
		Ignore []byte `json:"ignore,omitempty"` // more rules of gitignore(5), below those of the tree; at most 512 KiB
	}
)
