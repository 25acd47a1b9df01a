package archive

import (
	"errors"
	"hash/maphash"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
)

// symlink makes a symbolic link.
func (x *extractor) symlink(dir int, base string, h *pax.Header) error {
	if h.Target == "" {
		return pax.Refuse(h.Name, "is a symlink to nothing")
	}
	return x.under(dir, base, h, func(temp string) error {
		if err := unix.Symlinkat(h.Target, dir, temp); err != nil {
			return err
		}
		fd, err := unix.Openat(dir, temp, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return x.linkAttributes(fd, procPath(dir)+"/"+temp, h)
	})
}

// link makes a hard link to a file that this archive has made.
func (x *extractor) link(dir int, base string, h *pax.Header) error {
	target, err := x.place(h.Target)
	if err != nil {
		return err
	}
	fd, err := x.beneath(target, 0)
	if errors.Is(err, unix.ENOENT) {
		return pax.Refuse(h.Name, "is a hard link to %.300q, which is not there", h.Target)
	}
	if err != nil {
		return blocked(h.Name, err)
	}
	defer unix.Close(fd)
	if ok, err := x.made(fd, target); err != nil || !ok {
		if err == nil {
			err = pax.Refuse(h.Name, "is a hard link to %.300q, which the archive did not make", h.Target)
		}
		return err
	}
	return x.under(dir, base, h, func(temp string) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, temp, unix.AT_SYMLINK_FOLLOW)
	})
}

// remember records that this extraction has made the file temp in dir. Times could not show this, because clocks
// are set back, and names could not, because another file may take them.
func (x *extractor) remember(dir int, temp string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, temp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if len(x.mine) < maxMade {
		x.mine[inode{st.Dev, st.Ino}] = struct{}{}
	}
	return nil
}

// made reports whether this archive has made the file fd, which is called name.
func (x *extractor) made(fd int, name string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, err
	}
	if x.opts.Foreign {
		_, ok := x.mine[inode{st.Dev, st.Ino}]
		return ok, nil
	}
	key := maphash.String(x.seed, name)
	left, ok := x.links[key]
	if left > 1 {
		x.links[key] = left - 1
	} else {
		delete(x.links, key)
	}
	return ok, nil
}

// special makes a device node or fifo.
func (x *extractor) special(dir int, base string, h *pax.Header) error {
	kind, what := uint32(unix.S_IFIFO), "fifo"
	switch h.Kind {
	case pax.KindChar:
		kind, what = unix.S_IFCHR, "device node"
	case pax.KindBlock:
		kind, what = unix.S_IFBLK, "device node"
	}
	if !x.opts.Special {
		return banger.Errorf(banger.CodeDenied, "the archive's entry %.300q is a %s, which is not made here", h.Name, what).
			WithHint("copy as root with --archive, or leave it out")
	}
	return x.under(dir, base, h, func(temp string) error {
		dev := 0
		if kind != unix.S_IFIFO {
			dev = int(unix.Mkdev(h.Major, h.Minor))
		}
		if err := unix.Mknodat(dir, temp, kind|0o600, dev); err != nil {
			return err
		}
		fd, err := unix.Openat(dir, temp, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return x.attributes(fd, h)
	})
}
