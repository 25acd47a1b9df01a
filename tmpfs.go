package banger

import (
	"path"
	"regexp"
)

// Tmpfs is a file system in the guest's memory, which is empty at each start.
type Tmpfs struct {
	Path    string   `json:"path"`              // absolute; it is made if it is missing
	Options []string `json:"options,omitempty"` // of mount(8), after nosuid, nodev and noexec
}

// tmpfsOption matches the options of a Tmpfs (mount(8), tmpfs(5)).
var tmpfsOption = regexp.MustCompile(`^(rw|ro|(no)?(suid|dev|exec|atime|diratime)|relatime|strictatime|sync|` +
	`(size|nr_blocks|nr_inodes)=[0-9]+[kKmMgG%]?|mode=[0-7]{1,5}|[ug]id=[0-9]{1,9})$`)

// Check returns an *Error of CodeInvalid if the path cannot be mounted on or an option is not known.
func (t Tmpfs) Check() error {
	if err := checkLine("the path of a tmpfs", t.Path); err != nil {
		return err
	}
	if !path.IsAbs(t.Path) || path.Clean(t.Path) == "/" {
		return Errorf(CodeInvalid, "a tmpfs cannot be at %.80q: its path must be absolute, and not /", t.Path)
	}
	for _, o := range t.Options {
		if !tmpfsOption.MatchString(o) {
			return Errorf(CodeInvalid, "the tmpfs at %.80s has the option %.80q, which is not known", t.Path, o).
				WithHint("for example: --tmpfs /scratch:size=64m,mode=1777")
		}
	}
	return nil
}
