package archive

import (
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
)

// renaming is the last step of a file: it was made in dir as temp, and will be called base.
type renaming struct {
	dir        int
	temp, base string
	h          *pax.Header
}

// do renames the file.
func (n *renaming) do() error {
	err := rename(n.dir, n.temp, n.base)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		err = pax.Refuse(n.h.Name, "would take the place of a directory")
	}
	return err
}

// commit gives the single file its name.
func (x *extractor) commit() error {
	if x.pending == nil {
		return nil
	}
	if err := x.pending.do(); err != nil {
		return failure("writing", x.pending.h.Name, err)
	}
	x.pending = nil
	return nil
}

// giveUp undoes after err what can be undone. What stays gets its attributes if possible, and the error says that
// it is there.
func (x *extractor) giveUp(err error, dst string) error {
	if x.ctx.Err() != nil {
		err = banger.Errorf(banger.CodeCanceled, "canceled")
	}
	if x.pending != nil {
		unix.Unlinkat(x.pending.dir, x.pending.temp, 0)
		return err
	}
	if x.fresh && x.discard(x.to) == nil {
		return err
	}
	x.leave("")
	if x.single || x.report.Entries == 0 {
		return err
	}
	e, ok := errors.AsType[*banger.Error](err)
	if !ok {
		e = banger.Errorf(banger.CodeInternal, "%w", err)
	}
	incomplete := *e
	incomplete.Message = e.Message + "; the copy is incomplete, and what came of it is left in " + quoted(dst)
	return &incomplete
}

// quoted returns a name as errors show it.
func quoted(name string) string { return banger.Errorf("", "%.300q", name).Message }

// discardBatch is how many names of a directory are kept in memory while it is removed.
const discardBatch = 256

// discard removes the directory name beneath root with everything in it. It keeps only the current directory open,
// because a tree may be deeper than the limit of descriptors.
func (x *extractor) discard(name string) error {
	parent, base := path.Split(name)
	for {
		dirs, err := x.discardFiles(name)
		if err != nil {
			return err
		}
		if len(dirs) == 0 {
			break
		}
		for _, d := range dirs {
			if err := x.discard(name + "/" + d); err != nil {
				return err
			}
		}
	}
	if parent == "" {
		return unix.Unlinkat(x.root, base, unix.AT_REMOVEDIR)
	}
	above, err := x.beneath(strings.TrimSuffix(parent, "/"), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(above)
	return unix.Unlinkat(above, base, unix.AT_REMOVEDIR)
}

// discardFiles removes everything but directories from the directory name, and returns some of the directories in
// it.
func (x *extractor) discardFiles(name string) (dirs []string, err error) {
	fd, err := x.beneath(name, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Chmod(procPath(fd), 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(procPath(fd))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for len(dirs) < discardBatch {
		names, err := f.Readdirnames(discardBatch)
		for _, n := range names {
			switch err := unix.Unlinkat(fd, n, 0); {
			case errors.Is(err, unix.EISDIR):
				dirs = append(dirs, n)
			case err != nil && !errors.Is(err, unix.ENOENT):
				return nil, err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

// fileType returns the type of an entry as in the mode of a file, or 0 for a hard link.
func fileType(kind byte) uint32 {
	switch kind {
	case pax.KindFile:
		return unix.S_IFREG
	case pax.KindSymlink:
		return unix.S_IFLNK
	case pax.KindChar:
		return unix.S_IFCHR
	case pax.KindBlock:
		return unix.S_IFBLK
	case pax.KindDir:
		return unix.S_IFDIR
	case pax.KindFifo:
		return unix.S_IFIFO
	}
	return 0
}

// kindName returns the name of a type for a person.
func kindName(mode uint32) string {
	switch mode {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device node"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "hard link"
}
