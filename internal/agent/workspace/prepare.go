package workspace

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/sparse"
)

// Prepare makes a workspace of the frames of a client, as guest.OpWorkspacePrepare describes. It writes the first
// answer to conn, and returns the last one. Nothing is left after an error.
func (m *Manager) Prepare(conn io.Writer, frames *frame.Reader, r guest.WorkspaceRequest) (done banger.Workspace,
	err error) {
	if r.New == nil {
		return done, banger.Errorf(banger.CodeInvalid, "no workspace given")
	}
	user, err := command.LookUp(r.User)
	if err != nil {
		return done, err
	}
	it := *r.New
	it.UID, it.GID = user.UID, user.GID
	w, err := m.reserve(it)
	if err != nil {
		return done, err
	}
	var made []string
	defer func() {
		if err != nil {
			w.undo(made)
			err = failed("making", w.Name, err)
		}
	}()
	dir, made, err := openPath(w.Path)
	if err != nil {
		return done, err
	}
	err = isEmpty(dir, w.Path)
	unix.Close(dir)
	if err != nil {
		return done, err
	}
	if err := errors.Join(os.MkdirAll(m.dir, 0o700), os.RemoveAll(w.path()), os.Mkdir(w.path(), 0o700)); err != nil {
		return done, err
	}
	if err := frame.WriteJSON(conn, frame.Response, w.Workspace); err != nil {
		return done, err
	}
	if err := receive(frames, w.image()); err != nil {
		return done, err
	}
	if err := w.begin(); err != nil {
		return done, err
	}
	return w.Workspace, nil
}

// begin mounts a new workspace whose image is there, and makes it last.
func (w *workspace) begin() error {
	w.op.Lock()
	defer w.op.Unlock()
	if err := w.mountBase(); err != nil {
		return err
	}
	if err := w.makeUpper(w.Generation); err != nil {
		return err
	}
	mount, dev, err := w.overlay(w.Generation)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if err := w.show(mount); err != nil {
		return err
	}
	w.m.mu.Lock()
	w.dev = dev
	w.m.mu.Unlock()
	if err := w.record.write(w.path()); err != nil {
		return err
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.ready = true
	return nil
}

// undo removes what is there of a workspace that could not be made, with the directories that were made for its path.
func (w *workspace) undo(made []string) {
	w.op.Lock()
	defer w.op.Unlock()
	readMounts().unmount(w.shown(), unix.MNT_DETACH)
	unix.Unmount(w.base(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	removeRecord(w.path())
	os.RemoveAll(w.path())
	unmake(made)
	w.m.forget(w)
}

// receive writes the frames of stdin, a file without its holes (package sparse), to a new file, which then survives a
// power cut.
func receive(frames *frame.Reader, name string) error {
	f, err := newImage(name)
	if err != nil {
		return err
	}
	defer f.close()
	in := &input{frames: frames}
	_, err = sparse.Receive(in, f, guest.MaxImage)
	switch {
	case errors.Is(err, sparse.ErrSize):
		return banger.Errorf(banger.CodeInvalid, "the baseline has more than %s", banger.FormatSize(guest.MaxImage)).
			WithHint("leave out what is large, or copy it with banger cp")
	case errors.Is(err, sparse.ErrStream):
		return banger.Errorf(banger.CodeInvalid, "the client did not send the whole baseline")
	case err != nil:
		return err
	}
	if n, err := in.Read(make([]byte, 1)); n > 0 {
		return banger.Errorf(banger.CodeInvalid, "the client sent more than the baseline")
	} else if err != io.EOF {
		return err
	}
	return f.finish()
}

// input is what the frames of stdin carry, up to its end.
type input struct {
	frames *frame.Reader
	rest   []byte
}

func (in *input) Read(p []byte) (int, error) {
	for len(in.rest) == 0 {
		t, piece, err := in.frames.NextPiece(frame.Stdin)
		switch {
		case err != nil:
			return 0, banger.Errorf(banger.CodeCanceled, "the client went away before it had sent the baseline")
		case t == frame.StdinEOF:
			return 0, io.EOF
		case t != frame.Stdin:
			return 0, banger.Errorf(banger.CodeInvalid, "frame %d has no place in a baseline", t)
		}
		in.rest = piece
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

const (
	pageSize = 4096
	// pieceSize is the size of a write in bytes.
	pieceSize = 1 << 20
	// keptFree is how many bytes of the disk stay free: a workspace needs room for its changes.
	keptFree = 16 << 20
	// roomEvery is after how many bytes the room is looked at.
	roomEvery = 16 << 20
)

// image is the file of a baseline that is being written. It bypasses the page cache if the file system allows that:
// an emulated guest takes more time to fill and empty the cache than to receive the bytes.
type image struct {
	f      *os.File
	piece  []byte // whole pages of memory
	n      int    // bytes of it in use
	at     int64  // where it goes
	direct bool
	room   int64 // how many bytes may be written before the room is looked at
}

// Truncate sets the size of the file.
func (i *image) Truncate(size int64) error { return i.f.Truncate(size) }

// WriteAt implements io.WriterAt. It is quick where one write goes on at the end of the one before.
func (i *image) WriteAt(p []byte, at int64) (int, error) {
	if at != i.at+int64(i.n) {
		if err := i.empty(); err != nil {
			return 0, err
		}
		i.at = at
		i.setDirect(true)
	}
	return len(p), i.write(p)
}

func newImage(name string) (*image, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	piece, err := unix.Mmap(-1, 0, pieceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		f.Close()
		return nil, err
	}
	i := &image{f: f, piece: piece}
	i.setDirect(true)
	return i, nil
}

func (i *image) close() {
	unix.Munmap(i.piece)
	i.f.Close()
}

// setDirect turns the bypass of the page cache on, if the file system allows it, or off.
func (i *image) setDirect(on bool) {
	flags := 0
	if on {
		flags = unix.O_DIRECT
	}
	_, err := unix.FcntlInt(i.f.Fd(), unix.F_SETFL, flags)
	i.direct = on && err == nil
}

func (i *image) write(p []byte) error {
	for len(p) > 0 {
		n := copy(i.piece[i.n:], p)
		p, i.n = p[n:], i.n+n
		if i.n == len(i.piece) {
			if err := i.flush(i.n); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes the first n bytes of the piece, and keeps the rest.
func (i *image) flush(n int) error {
	if n == 0 {
		return nil
	}
	if i.room -= int64(n); i.room < 0 {
		i.room = roomEvery
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(i.f.Fd()), &st); err != nil {
			return err
		}
		if int64(st.Bavail)*st.Bsize < keptFree {
			return unix.ENOSPC
		}
	}
	_, err := i.f.WriteAt(i.piece[:n], i.at)
	if i.direct && errors.Is(err, unix.EINVAL) { // this file system cannot
		i.setDirect(false)
		_, err = i.f.WriteAt(i.piece[:n], i.at)
	}
	if err != nil {
		return err
	}
	i.at += int64(n)
	i.n = copy(i.piece, i.piece[n:i.n])
	return nil
}

// empty writes what is left.
func (i *image) empty() error {
	if err := i.flush(i.n - i.n%pageSize); err != nil {
		return err
	}
	i.setDirect(false)
	return i.flush(i.n)
}

// finish writes what is left, and makes the file last.
func (i *image) finish() error {
	if err := i.empty(); err != nil {
		return err
	}
	return i.f.Sync()
}
