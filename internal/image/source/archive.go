package source

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"banger"
	"banger/internal/contextio"
	"banger/internal/image/layer"
	"banger/internal/reserve"
)

// archive is a plain tar on the host. Its members are read in place.
type archive struct {
	path    string
	members map[string]member
	cleanup func()
}

type member struct {
	offset, size int64
	link         string // where a symlink leads, inside the archive
}

const maxMembers = 100_000

// openArchive lists the members of a tar. It first unpacks a compressed tar to a temporary file in
// dir, because a compressed tar cannot be read in place.
func openArchive(ctx context.Context, file, dir string) (*archive, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := &archive{path: file, cleanup: func() {}}
	in := bufio.NewReader(contextio.NewReader(ctx, f))
	plain, free, err := layer.Decompress(in)
	if err != nil {
		return nil, err
	}
	defer free()
	if plain != io.Reader(in) {
		if a.path, err = spool(plain, dir); err != nil {
			return nil, err
		}
		a.cleanup = func() { os.Remove(a.path) }
	}
	if err := a.list(ctx); err != nil {
		a.cleanup()
		return nil, err
	}
	return a, nil
}

// spool writes r to a temporary file in dir and returns its path. The caller removes the file.
func spool(r io.Reader, dir string) (string, error) {
	f, err := os.CreateTemp(dir, TempPrefix+"*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// list finds the members.
func (a *archive) list(ctx context.Context) error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.members = map[string]member{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch {
		case len(a.members) >= maxMembers:
			return fmt.Errorf("it has more than %d members", maxMembers)
		case h.Typeflag == tar.TypeSymlink: // docker's form of a layer that it had already written
			a.members[name] = member{link: strings.TrimPrefix(path.Join("/", path.Dir(name), h.Linkname), "/")}
		case h.Typeflag != tar.TypeReg:
		case offset+h.Size > info.Size(): // the archive is cut off, or sparse
			return fmt.Errorf("%.200q is larger than the archive", h.Name)
		default:
			a.members[name] = member{offset: offset, size: h.Size}
		}
	}
}

// section reads one member.
type section struct {
	*io.SectionReader
	io.Closer
}

// open returns a member, through at most one symlink.
func (a *archive) open(name string) (io.ReadSeekCloser, error) {
	m, ok := a.members[name]
	if ok && m.link != "" {
		m, ok = a.members[m.link]
	}
	if !ok || m.link != "" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := os.Open(a.path)
	if err != nil {
		return nil, err
	}
	return section{io.NewSectionReader(f, m.offset, m.size), f}, nil
}

// openOCIArchive opens an image of the form FILE[:tag].
func openOCIArchive(ctx context.Context, path, dir string) (Content, error) {
	file, tag := splitName(path)
	a, err := openArchive(ctx, file, dir)
	if err != nil {
		return nil, archiveError(ctx, "OCI", file, err)
	}
	return &ociLayout{a.open, tag, a.cleanup}, nil
}

// archiveError describes a failure to read an archive, unless the reason is the host or the caller.
func archiveError(ctx context.Context, kind, file string, err error) error {
	if ctx.Err() != nil || reserve.IsFull(err) {
		return err
	}
	return banger.Errorf(banger.CodeInvalid, "cannot read the %s archive %s: %w", kind, file, reason(err))
}

// readSmall returns a member of at most limit bytes.
func (a *archive) readSmall(name string, limit int64) ([]byte, error) {
	f, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, err
}
