package banger

import (
	"fmt"
	"path"
	"strings"
)

// The operations on files of a VM.
const (
	FileStat    = "stat"    // say what is at a path
	FileArchive = "archive" // send a file or tree as a tar
	FileExtract = "extract" // write what a tar holds
)

// MaxPath is the most bytes of a path, of a VM or in an archive.
const MaxPath = 4096

// FileRequest asks for files of a VM. A relative path starts at the image's
// working directory. Paths are bytes, as Linux has them.
type FileRequest struct {
	Op   string `json:"-"`
	Path []byte `json:"path"`

	// Name is what an archive calls the file or tree; "." sends a directory's content.
	Name   []byte `json:"name,omitempty"`
	Follow bool   `json:"follow,omitempty"` // stat, archive: a symlink at Path stands for its target

	Into     bool `json:"into,omitempty"`      // extract: any entries, into the directory at Path; else one file or tree to Path
	Owners   bool `json:"owners,omitempty"`    // extract: keep uid and gid; else all becomes root's
	NoXattrs bool `json:"no_xattrs,omitempty"` // neither send nor set extended attributes
}

// Check returns an *Error of CodeInvalid when r cannot be met at all.
func (r *FileRequest) Check() error {
	name := string(r.Name)
	switch {
	case r.Op != FileStat && r.Op != FileArchive && r.Op != FileExtract:
		return Errorf(CodeInvalid, "%.20q is not an operation on files", r.Op).WithHint("use stat, archive or extract")
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

// Resolve makes a relative path start at dir. What says more than the name, a
// slash or dot at the end, stays.
func (r *FileRequest) Resolve(dir string) {
	if p := string(r.Path); !strings.HasPrefix(p, "/") {
		r.Path = []byte(strings.TrimSuffix(path.Join("/", dir), "/") + "/" + p)
	}
}

// FileInfo is what is at a path of a VM; a symlink is not followed.
type FileInfo struct {
	Mode    uint32 `json:"mode"` // type and permissions, as in st_mode of Linux
	Size    int64  `json:"size"`
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	ModTime int64  `json:"mtime_ns"`         // since 1970
	Target  []byte `json:"target,omitempty"` // of a symlink
}

// CopyReport says what a copy has moved and what of it could not be kept.
type CopyReport struct {
	Entries    int64 `json:"entries"`
	Bytes      int64 `json:"bytes"`                // of data, holes not counted
	Sockets    int64 `json:"sockets,omitempty"`    // left out
	Changed    int64 `json:"changed,omitempty"`    // files that shrank while they were read; the rest is zeros
	Owners     int64 `json:"owners,omitempty"`     // not permitted here, as all below
	Modes      int64 `json:"modes,omitempty"`      //
	Times      int64 `json:"times,omitempty"`      //
	Attributes int64 `json:"attributes,omitempty"` // extended ones
	Rights     int64 `json:"rights,omitempty"`     // files that lost setuid, setgid or capabilities
}

// Add adds what the other end reports of the same copy.
func (r *CopyReport) Add(o CopyReport) {
	r.Entries, r.Bytes = max(r.Entries, o.Entries), max(r.Bytes, o.Bytes)
	r.Sockets += o.Sockets
	r.Changed += o.Changed
	r.Owners += o.Owners
	r.Modes += o.Modes
	r.Times += o.Times
	r.Attributes += o.Attributes
	r.Rights += o.Rights
}

// Lost says in words what was not kept, or nothing.
func (r *CopyReport) Lost() string {
	var parts []string
	for _, l := range []struct {
		n          int64
		one, other string
	}{
		{r.Sockets, "socket was left out", "sockets were left out"},
		{r.Changed, "file shrank while it was read and is filled with zeros", "files shrank while they were read and are filled with zeros"},
		{r.Owners, "owner was not kept", "owners were not kept"},
		{r.Modes, "mode was not kept whole", "modes were not kept whole"},
		{r.Times, "time was not kept", "times were not kept"},
		{r.Attributes, "extended attribute was not kept", "extended attributes were not kept"},
		{r.Rights, "file lost its setuid or setgid bit or capabilities; -a keeps them",
			"files lost their setuid or setgid bit or capabilities; -a keeps them"},
	} {
		switch {
		case l.n == 1:
			parts = append(parts, "1 "+l.one)
		case l.n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", l.n, l.other))
		}
	}
	return strings.Join(parts, ", ")
}
