package archive

import (
	"errors"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
)

// level is a directory that gets its attributes once everything in it is written.
type level struct {
	end   int // of its path in extractor.path
	h     *pax.Header
	mtime unix.Timespec // if h is nil: the time that the directory had before entries were added
}

// directory makes a directory, or enters an existing one.
func (x *extractor) directory(dir int, name, base string, h *pax.Header) error {
	err := unix.Mkdirat(dir, base, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err == nil && name == x.to {
		x.fresh = true
	}
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return pax.Refuse(h.Name, "is a directory, but something else has its name")
	}
	if err != nil {
		return err
	}
	x.moveTo(name, fd)
	x.stack = append(x.stack, level{end: len(name), h: h})
	return nil
}

// reenter saves the time of a directory that this archive has already finished and now adds to. Such a directory is
// recognised by its time, which was set and so differs from that of the last change. No list of all directories is
// needed.
func (x *extractor) reenter(fd int) error {
	if n := len(x.stack); x.path == "" || n > 0 && x.stack[n-1].end == len(x.path) {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !before(st.Ctim, x.start) && st.Mtim != st.Ctim {
		x.stack = append(x.stack, level{end: len(x.path), mtime: st.Mtim})
	}
	return nil
}

// before reports whether a is earlier than b.
func before(a, b unix.Timespec) bool { return a.Sec < b.Sec || a.Sec == b.Sec && a.Nsec < b.Nsec }

// leave completes the directories that do not contain name.
func (x *extractor) leave(name string) error {
	for n := len(x.stack); n > 0; n = len(x.stack) {
		l := x.stack[n-1]
		at := x.path[:l.end]
		if name == at || strings.HasPrefix(name, at+"/") {
			return nil
		}
		x.stack = x.stack[:n-1]
		if err := x.complete(at, l); err != nil {
			return failure("writing", at, err)
		}
	}
	return nil
}

// complete sets the attributes of a directory.
func (x *extractor) complete(at string, l level) error {
	fd, err := x.beneath(at, unix.O_DIRECTORY)
	if err != nil {
		return blocked(path.Base(at), err)
	}
	defer unix.Close(fd)
	if l.h != nil {
		return x.attributes(fd, l.h)
	}
	return countRefused(&x.report.Times, setTime(fd, l.mtime))
}

// attributes sets the attributes of a file, directory or node from h. The order matters: a change of the owner
// removes setuid and capabilities.
func (x *extractor) attributes(fd int, h *pax.Header) error {
	mode, before := h.Mode, x.report.Owners
	if !x.opts.Rights && x.dropRights(h) {
		mode &^= 0o6000
		x.report.Rights++
	}
	if err := x.owner(fd, h); err != nil {
		return err
	}
	if x.report.Owners > before && mode&0o6000 != 0 { // it would grant the rights of another owner
		mode &^= 0o6000
		x.report.Modes++
	}
	if len(h.Xattrs) > 0 {
		if err := x.setXattrs(procPath(fd), h, unix.Setxattr); err != nil {
			return err
		}
	}
	if err := x.setMode(fd, h.Kind, mode); err != nil {
		return err
	}
	return countRefused(&x.report.Times, setTime(fd, timespec(h.Mtime)))
}

// linkAttributes sets those attributes that a symlink can have.
func (x *extractor) linkAttributes(fd int, at string, h *pax.Header) error {
	if !x.opts.Rights {
		h.Mode = 0o777 // the only mode of a symlink
		x.dropRights(h)
	}
	if err := x.owner(fd, h); err != nil {
		return err
	}
	if err := x.setXattrs(at, h, unix.Lsetxattr); err != nil {
		return err
	}
	return countRefused(&x.report.Times, setTime(fd, timespec(h.Mtime)))
}

// Attributes that grant rights beyond those of a mode: to those who run a file, and for files that are made in a
// directory later.
const (
	capabilities = "security.capability"
	defaultACL   = "system.posix_acl_default"
)

// dropRights removes from h the attributes that grant rights, and reports whether setuid, setgid or capabilities
// were among them. It also removes attributes of root's name spaces, which programs trust.
func (x *extractor) dropRights(h *pax.Header) bool {
	dropped := h.Mode&0o6000 != 0
	if x.opts.NoXattrs {
		return dropped
	}
	for name := range h.Xattrs {
		switch {
		case name == capabilities:
			dropped = true
		case name == defaultACL, strings.HasPrefix(name, "security."), strings.HasPrefix(name, "trusted."):
			x.report.Attributes++
		default:
			continue
		}
		delete(h.Xattrs, name)
	}
	return dropped
}

// owner sets the owner, if owners are kept.
func (x *extractor) owner(fd int, h *pax.Header) error {
	if !x.opts.Owners {
		return nil
	}
	return countRefused(&x.report.Owners, changeOwner(fd, uint32(h.UID), uint32(h.GID)))
}

// setMode sets the mode. The kernel silently drops setgid for a process that is not in the group.
func (x *extractor) setMode(fd int, kind byte, mode uint32) error {
	var err error
	if kind == pax.KindFile {
		err = changeMode(fd, mode)
	} else { // the descriptor is only a path
		err = unix.Chmod(procPath(fd), mode)
	}
	if err != nil || mode&0o6000 == 0 {
		return countRefused(&x.report.Modes, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&0o7777 != mode {
		x.report.Modes++
	}
	return err
}

// setXattrs sets the extended attributes of the file at a path.
func (x *extractor) setXattrs(at string, h *pax.Header, set func(string, string, []byte, int) error) error {
	if x.opts.NoXattrs {
		return nil
	}
	for name, value := range h.Xattrs {
		err := error(unix.EPERM)
		if !isMachines(name) && !strings.HasPrefix(name, "trusted.overlay.") {
			err = set(at, name, []byte(value), 0)
		}
		if err := countRefused(&x.report.Attributes, err); err != nil {
			return banger.Errorf(banger.CodeInternal, "setting the attribute %.100q: %w", name, err)
		}
	}
	return nil
}

// isMachines reports whether an attribute describes the security module of a machine and not the file.
func isMachines(name string) bool {
	switch name {
	case "security.selinux", "security.apparmor", "security.ima", "security.evm":
		return true
	}
	return strings.HasPrefix(name, "security.SMACK")
}

// countRefused counts err if the system does not permit the operation here. It returns other errors.
func countRefused(count *int64, err error) error {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.ENOTSUP, unix.EINVAL, unix.ERANGE, unix.E2BIG, unix.EROFS} {
		if errors.Is(err, e) {
			*count++
			return nil
		}
	}
	return err
}

// timespec returns a time in the form of system calls.
func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// setTime sets the time of the last change of the content.
func setTime(fd int, mtime unix.Timespec) error {
	return changeTimes(fd, &[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime})
}
