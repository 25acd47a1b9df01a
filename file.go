package banger

import (
	"path"
	"strings"
)

// The operations on files of a VM.
const (
	FileStat    = "stat"    // say what is at a path
	FileList    = "list"    // say what is in a directory; a symlink at Path is followed
	FileArchive = "archive" // send a file or tree as a tar
	FileExtract = "extract" // write what a tar holds
)

// MaxPath is the maximum length in bytes of a path in a VM or in an archive.
const MaxPath = 4096

// FileRequest asks for files of a VM. A relative path starts at the image's
// working directory. Paths are bytes, as Linux has them.
type FileRequest struct {
	Op   string `json:"-"`
	Path []byte `json:"path"`

	// Name is the name of the file or tree in the archive. "." sends the content of a directory.
	Name   []byte `json:"name,omitempty"`
	Follow bool   `json:"follow,omitempty"` // stat, archive: follow a symlink at Path

	// Into is for extract: it takes any entries into the directory at Path. Without Into, the archive holds one file or
	// tree, which is written to Path.
	Into     bool `json:"into,omitempty"`
	Owners   bool `json:"owners,omitempty"`    // extract: keep uid and gid; otherwise root owns everything
	NoXattrs bool `json:"no_xattrs,omitempty"` // neither send nor set extended attributes
}

// Check returns an *Error of CodeInvalid when r can never be carried out.
func (r *FileRequest) Check() error {
	name := string(r.Name)
	switch {
	case r.Op != FileStat && r.Op != FileList && r.Op != FileArchive && r.Op != FileExtract:
		return Errorf(CodeInvalid, "%.20q is not an operation on files", r.Op).WithHint("use stat, list, archive or extract")
	case len(r.Path) == 0:
		return Errorf(CodeInvalid, "no path is given")
	case len(r.Path) > MaxPath:
		return Errorf(CodeInvalid, "the path has %d bytes, but at most %d are allowed", len(r.Path), MaxPath)
	case strings.ContainsRune(string(r.Path), 0) || strings.ContainsRune(name, 0):
		return Errorf(CodeInvalid, "a path contains a NUL byte")
	case r.Op == FileArchive && (name == "" || name == ".." || len(name) > 255 || strings.Contains(name, "/")):
		return Errorf(CodeInvalid, "%.300q cannot be the name of what is archived", name)
	}
	return nil
}

// Resolve makes a relative path start at dir. A slash or dot at the end is kept, because it says more than the name.
func (r *FileRequest) Resolve(dir string) {
	if p := string(r.Path); !strings.HasPrefix(p, "/") {
		r.Path = []byte(strings.TrimSuffix(path.Join("/", dir), "/") + "/" + p)
	}
}

// FileInfo describes the file at a path of a VM. It does not follow a symlink.
type FileInfo struct {
	Mode    uint32 `json:"mode"` // type and permissions, as in st_mode of Linux
	Size    int64  `json:"size"`
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	ModTime int64  `json:"mtime_ns"`         // nanoseconds since 1970
	Target  []byte `json:"target,omitempty"` // of a symlink

	Name    []byte     `json:"name,omitempty"`    // in a list
	Entries []FileInfo `json:"entries,omitempty"` // of a directory that is listed, by name
	More    bool       `json:"more,omitempty"`    // there are more entries than a list may have
}

// CopyReport says what a copy has moved and what it could not keep.
type CopyReport struct {
	Entries    int64 `json:"entries"`
	Bytes      int64 `json:"bytes"`                // bytes of data without holes
	Sockets    int64 `json:"sockets,omitempty"`    // left out
	Changed    int64 `json:"changed,omitempty"`    // files that shrank while they were read; zeros fill the rest
	Owners     int64 `json:"owners,omitempty"`     // not permitted here; the same holds for the fields below
	Modes      int64 `json:"modes,omitempty"`      //
	Times      int64 `json:"times,omitempty"`      //
	Attributes int64 `json:"attributes,omitempty"` // extended attributes
	Rights     int64 `json:"rights,omitempty"`     // files that lost setuid, setgid or capabilities
}
