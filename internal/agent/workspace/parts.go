package workspace

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// inGit are what is sent of a directory called .git, in this order: an object that a ref names is there when the ref
// is, so objects come last. Hooks, configuration, index and logs stay in the VM.
var inGit = []string{"HEAD", "refs", "packed-refs", "shallow", "objects"}

// git writes the parts of a .git.
func (c *changes) git(e *entry) error {
	d := e.dir
	if c.part == guest.PartTree || d.ignored && !e.baseIsDir() {
		return nil
	}
	if !e.isDir() {
		if e.baseIsDir() {
			return c.gone(e)
		}
		if !e.isWhiteout() && !e.hasBase {
			c.note(e.path, "a .git that is no directory is left out")
		}
		return nil
	}
	below, err := e.enter()
	if err != nil {
		c.note(e.path, "the directory cannot be read: "+reason(err))
		return nil
	}
	defer below.close()
	if e.baseIsDir() && below.hidden { // also below a directory of the tree that hides it: that may not be sent
		if err := c.mark(below, ".wh..wh..opq"); err != nil {
			return err
		}
	}
	for _, name := range inGit {
		err := c.gitEntry(below, name)
		if err != nil {
			return err
		}
	}
	return nil
}

// gitEntry writes a file below a .git, or a directory with all that is in it.
func (c *changes) gitEntry(d *dir, name string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	e, err := d.look(name)
	switch {
	case err != nil:
		c.note(d.join(name), reason(err))
		return nil
	case e == nil:
		return nil
	case e.isWhiteout():
		return c.gone(e)
	case e.isMark():
		c.note(e.path, errMark.Error())
		return nil
	case e.kind() == unix.S_IFREG:
		return c.file(e)
	case !e.isDir():
		c.note(e.path, "only files and directories of a repository are sent")
		return nil
	}
	below, err := e.enter()
	if err != nil {
		c.note(e.path, "the directory cannot be read: "+reason(err))
		return nil
	}
	defer below.close()
	if e.baseIsDir() && below.hidden && !d.hidden {
		if err := c.mark(below, ".wh..wh..opq"); err != nil {
			return err
		}
	}
	names, err := below.names()
	if err != nil {
		c.note(e.path, "the directory cannot be read: "+reason(err))
		return nil
	}
	for _, next := range names {
		if name == "objects" && next == "info" && path.Base(d.path) == ".git" { // it may name objects elsewhere
			continue
		}
		if err := c.gitEntry(below, next); err != nil {
			return err
		}
	}
	return nil
}

// header returns the header of a file.
func header(name string, kind byte, st *unix.Stat_t) *tar.Header {
	return &tar.Header{Name: name, Typeflag: kind, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0)} // fractions of a second make a header three times as long
}

// send writes the header of a directory, and those of the directories above it, unless that was done.
func (c *changes) send(d *dir) error {
	if d == nil {
		return nil
	}
	if err := c.send(d.above); err != nil || d.header == nil {
		return err
	}
	h := d.header
	d.header = nil
	return c.write(h)
}

func (c *changes) write(h *tar.Header) error {
	c.report.Entries++
	return c.tar.WriteHeader(h)
}

// mark writes an empty file into a directory, whose name has a meaning in a layer.
func (c *changes) mark(d *dir, name string) error {
	if err := c.send(d); err != nil {
		return err
	}
	return c.write(&tar.Header{Name: d.join(name), Typeflag: tar.TypeReg})
}

// gone writes that the baseline's file is not there any more.
func (c *changes) gone(e *entry) error {
	if !e.hasBase || e.dir.hidden {
		return nil
	}
	return c.mark(e.dir, ".wh."+e.name)
}

// replaced is for a file that is not sent. It writes that the baseline's file of that name is gone.
func (c *changes) replaced(e *entry) error {
	if c.part == guest.PartGit {
		return nil
	}
	return c.gone(e)
}

// file writes a file that is no directory, unless it equals the baseline's.
func (c *changes) file(e *entry) error {
	switch e.kind() {
	case unix.S_IFREG:
		return c.regular(e)
	case unix.S_IFLNK:
		target, err := readLink(e.dir.upper, e.name)
		if err != nil {
			c.note(e.path, reason(err))
			return nil
		}
		if !e.dir.hidden && e.hasBase && e.baseKind() == unix.S_IFLNK {
			if before, err := readLink(e.dir.base, e.name); err == nil && before == target {
				return nil
			}
		}
		h := header(e.path, tar.TypeSymlink, &e.st)
		h.Linkname = target
		if err := c.send(e.dir); err != nil {
			return err
		}
		return c.write(h)
	}
	c.note(e.path, "sockets, pipes and devices are left out")
	return c.gone(e)
}

// regular writes a regular file. As many bytes follow as its header says, though it may change meanwhile.
func (c *changes) regular(e *entry) error {
	f, st, err := openFile(e.dir.upper, e.name)
	if err != nil {
		c.note(e.path, reason(err))
		return nil
	}
	defer f.Close()
	if st.Size > guest.MaxImage {
		c.note(e.path, "it is too large")
		return nil
	}
	if !e.dir.hidden && e.hasBase && e.baseKind() == unix.S_IFREG && (e.base.Mode^st.Mode)&0o7777 == 0 &&
		e.base.Size == st.Size {
		same, err := c.sameContent(e, f, st.Size)
		if err != nil {
			return err
		}
		if same {
			return nil
		}
	}
	h := header(e.path, tar.TypeReg, &st)
	h.Size = st.Size
	if err := errors.Join(c.send(e.dir), c.write(h)); err != nil {
		return err
	}
	return c.content(e, f, st)
}

// content writes the bytes of a file.
func (c *changes) content(e *entry, f *os.File, st unix.Stat_t) error {
	chunk := c.chunk(0)
	for at := int64(0); at < st.Size; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		p := chunk[:min(int64(len(chunk)), st.Size-at)]
		n, err := f.ReadAt(p, at)
		if n == 0 && err != nil {
			if err != io.EOF {
				c.note(e.path, "it cannot be read whole: "+reason(err))
			}
			clear(p) // it is shorter now; that is noted below
			n = len(p)
		}
		if _, err := c.tar.Write(p[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	c.report.Bytes += st.Size
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err == nil && (now.Size != st.Size || now.Mtim != st.Mtim) {
		c.note(e.path, reason(errKind))
	}
	return nil
}

// chunkSize is how many bytes of a file are read at once.
const chunkSize = 256 << 10

func (c *changes) chunk(i int) []byte {
	if c.chunks[i] == nil {
		c.chunks[i] = make([]byte, chunkSize)
	}
	return c.chunks[i]
}

// sameContent reports whether a file has the same bytes as the baseline's, which has the same size. A file that
// cannot be read is not the same.
func (c *changes) sameContent(e *entry, f *os.File, size int64) (bool, error) {
	base, _, err := openFile(e.dir.base, e.name)
	if err != nil {
		return false, nil
	}
	defer base.Close()
	for at := int64(0); at < size; at += chunkSize {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		n := min(chunkSize, size-at)
		one, other := c.chunk(0)[:n], c.chunk(1)[:n]
		if _, err := f.ReadAt(one, at); err != nil {
			return false, nil
		}
		if _, err := base.ReadAt(other, at); err != nil {
			return false, nil
		}
		if !bytes.Equal(one, other) {
			return false, nil
		}
	}
	return true, nil
}
