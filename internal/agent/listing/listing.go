// Package listing says what is at a path of the guest, and in a directory. It follows paths as any program of the guest
// does. It must not know how files are copied.
package listing

import (
	"cmp"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"banger"
)

// Bounds of a list, which has to fit into one frame as JSON.
const (
	maxEntries = 5000
	maxBytes   = 512 << 10 // of names and targets
)

// Stat describes the file at a path. It follows a symlink there if follow is set. It fails with CodeNotFound if there
// is no file, and otherwise with CodeDenied.
func Stat(path string, follow bool) (banger.FileInfo, error) {
	var st unix.Stat_t
	stat := unix.Lstat
	if follow {
		stat = unix.Stat
	}
	err := stat(path, &st)
	info := banger.FileInfo{Mode: st.Mode, Size: st.Size, UID: st.Uid, GID: st.Gid, ModTime: st.Mtim.Nano()}
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var target string
		target, err = os.Readlink(path)
		info.Target = []byte(target)
	}
	return info, explain(path, err)
}

// List describes the directory at a path and its entries, by name. A directory with more entries than a list may have
// says so; which ones it then has is not defined. It fails as Stat does, and with CodeInvalid for another file.
func List(path string) (banger.FileInfo, error) {
	info, err := Stat(path, true)
	if err != nil {
		return info, err
	}
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		return info, banger.Errorf(banger.CodeInvalid, "%q is not a directory", path)
	}
	dir, err := os.Open(path)
	if err != nil {
		return info, explain(path, err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxEntries + 1)
	if len(names) > maxEntries {
		names, info.More = names[:maxEntries], true
	}
	bytes := 0
	for _, name := range names {
		entry, err := Stat(path+"/"+name, false)
		if err != nil {
			continue // it was removed meanwhile
		}
		if bytes += len(name) + len(entry.Target); bytes > maxBytes {
			info.More = true
			break
		}
		entry.Name = []byte(name)
		info.Entries = append(info.Entries, entry)
	}
	slices.SortFunc(info.Entries, func(a, b banger.FileInfo) int { return cmp.Compare(string(a.Name), string(b.Name)) })
	if len(names) == 0 { // otherwise what could be read is the answer
		return info, explain(path, err)
	}
	return info, nil
}

func explain(path string, err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return banger.Errorf(banger.CodeNotFound, "there is no file %q", path)
	}
	return banger.Errorf(banger.CodeDenied, "looking at %q: %w", path, err)
}
