package banger

// Comparison is what a user wants to have compared: the body of POST /v1/diffs. Each side is a VM or a snapshot, by
// name or id.
type Comparison struct {
	From string `json:"from,omitempty"` // "" means what To has come from: a snapshot, another VM, or else its image
	To   string `json:"to"`
	// Patch asks for the changes of text files as unified diffs.
	Patch bool `json:"patch,omitempty"`
}

// Check returns an *Error of CodeInvalid unless c can be carried out.
func (c Comparison) Check() error {
	if c.To == "" {
		return Errorf(CodeInvalid, "to is empty, but must name a VM or a snapshot")
	}
	return nil
}

// Compared is the end of a comparison.
type Compared struct {
	From    string `json:"from"`    // what To was compared with, in words
	To      string `json:"to"`      // in words
	Changes int    `json:"changes"` // files that differ
}

// Values of FileChange.Change.
const (
	FileAdded   = "added"
	FileRemoved = "removed"
	FileChanged = "changed"
)

// Values of FileChange.Differs.
const (
	DiffersType    = "type"
	DiffersContent = "content"
	DiffersTarget  = "target" // of a symlink
	DiffersDevice  = "device" // number of a device
	DiffersMode    = "mode"
	DiffersOwner   = "owner"
	DiffersXattrs  = "xattrs" // extended attributes, capabilities and access lists
)

// FileChange is one file that differs between two VMs, or between a VM and what it has come from. A directory whose
// files differ is not a change itself. A path with a slash at its end stands for all below it, which was not compared.
type FileChange struct {
	Path    string     `json:"path"`               // absolute; bytes that are not UTF-8 are U+FFFD
	RawPath []byte     `json:"raw_path,omitempty"` // the path, if it is not UTF-8
	Change  string     `json:"change"`             // FileAdded, FileRemoved or FileChanged
	Differs []string   `json:"differs,omitempty"`  // what is different of a file that has changed
	Before  *FileState `json:"before,omitempty"`
	After   *FileState `json:"after,omitempty"`
	Binary  bool       `json:"binary,omitempty"` // the content is no text, or too long for a patch
	Patch   string     `json:"patch,omitempty"`  // a unified diff of the text
	Note    string     `json:"note,omitempty"`   // why the file was not compared
}

// FileState is what a file was before or after.
type FileState struct {
	Mode   uint32 `json:"mode"` // type and permissions, as in st_mode of Linux
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   int64  `json:"size"`
	Target string `json:"target,omitempty"` // of a symlink; bytes that are not UTF-8 are U+FFFD
	Device string `json:"device,omitempty"` // MAJOR:MINOR
}
