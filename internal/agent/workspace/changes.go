package workspace

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/ignore"
)

// Changes writes what has changed in a workspace to w, as frames of output, and returns a report. frames are those of
// the client, as guest.OpWorkspaceChanges describes. The tar is that of a layer of an image (image-spec layer.md),
// but
//
//   - what equals the file of the baseline in kind, mode and content is left out, and so are owners and attributes,
//   - each name of a file with several is a file of its own,
//   - of a directory called .git there is only what parts.go lists,
//   - files that are ignored and not tracked are left out; all of the baseline is tracked,
//   - sockets, pipes and devices are left out, with a note.
//
// The report has a note, too, for each file that changed while it was read. A reset meanwhile is an error.
func (m *Manager) Changes(ctx context.Context, w io.Writer, frames *frame.Reader,
	r guest.WorkspaceRequest) (report banger.WorkspaceReport, err error) {
	if err := r.CheckPart(); err != nil {
		return report, err
	}
	tracked, err := readTracked(frames)
	if err != nil {
		return report, err
	}
	it, top, err := m.open(r.Name)
	if err != nil {
		return report, err
	}
	defer top.close()
	report, err = send(ctx, w, top, tracked, r)
	if err == nil {
		err = m.unchanged(it)
	}
	if err != nil {
		return report, failed("reading the changes of", r.Name, err)
	}
	return report, nil
}

// send writes the changes below the top of a workspace.
func send(ctx context.Context, w io.Writer, top *dir, tracked tracked,
	r guest.WorkspaceRequest) (banger.WorkspaceReport, error) {
	out := bufio.NewWriterSize(frame.Data(w, frame.Stdout), frame.MaxData)
	c := &changes{ctx: ctx, tar: tar.NewWriter(out), part: r.Part, tracked: tracked}
	top.rules = (&ignore.Stack{}).Push(ignore.Parse(r.Ignore, ""))
	err := c.directory(top)
	if err == nil {
		err = errors.Join(c.tar.Close(), out.Flush())
	}
	return c.report, err
}

// readTracked reads the paths that count as tracked.
func readTracked(frames *frame.Reader) (tracked, error) {
	var text strings.Builder
	paths := 0
	for {
		t, p, err := frames.Next()
		switch {
		case err != nil:
			return nil, banger.Errorf(banger.CodeCanceled, "the client went away before it had said which files are tracked")
		case t == frame.StdinEOF:
			list := strings.Split(text.String(), "\x00")
			slices.Sort(list)
			return list, nil
		case t != frame.Stdin:
			return nil, banger.Errorf(banger.CodeInvalid, "frame %d has no place in a list of tracked files", t)
		}
		text.Write(p)
		paths += bytes.Count(p, []byte{0})
		if text.Len() > guest.MaxTracked || paths > maxTracked {
			return nil, banger.Errorf(banger.CodeInvalid, "the list of tracked files has more than %s or %d paths",
				banger.FormatSize(guest.MaxTracked), maxTracked)
		}
	}
}

// tracked is a sorted list of paths.
type tracked []string

// has reports whether a path is in the list.
func (t tracked) has(path string) bool {
	_, found := slices.BinarySearch(t, path)
	return found
}

// below reports whether a path below a directory is in the list.
func (t tracked) below(dir string) bool {
	i := sort.SearchStrings(t, dir+"/")
	return i < len(t) && strings.HasPrefix(t[i], dir+"/")
}

// open opens the top of a workspace, and returns the workspace as it is now.
func (m *Manager) open(name string) (record, *dir, error) {
	w, err := m.hold(name)
	if err != nil {
		return record{}, nil, err
	}
	defer w.op.Unlock()
	if w.dev == 0 {
		return record{}, nil, banger.Errorf(banger.CodeConflict, "the workspace %s is not mounted: %s", w.Name, w.Error)
	}
	top := &dir{upper: -1, base: -1}
	if top.upper, err = unix.Open(w.upper(w.Generation), openDir, 0); err == nil {
		top.base, err = unix.Open(w.base(), openDir, 0)
	}
	if err != nil {
		top.close()
		return record{}, nil, failed("reading the changes of", name, err)
	}
	return w.record, top, nil
}

// unchanged returns an error unless a workspace is still what it was when its changes were opened.
func (m *Manager) unchanged(was record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.all[was.Name]; w == nil || w.ID != was.ID || w.Generation != was.Generation {
		return banger.Errorf(banger.CodeConflict, "the workspace %s was reset or removed while its changes were read",
			was.Name).WithHint("try again")
	}
	return nil
}

// These bounds limit what a hostile tree takes.
const (
	maxDepth   = 256
	maxNames   = 32 << 20 // bytes of the names in one directory
	maxTracked = 1 << 20  // paths that count as tracked
	maxNotes   = 100
	maxNoted   = 200 // bytes of the path in a note
)

// changes writes the changes of one workspace.
type changes struct {
	ctx     context.Context
	tar     *tar.Writer
	part    string
	tracked tracked
	report  banger.WorkspaceReport
	chunks  [2][]byte // for content
}

// note reports that a file is left out, or is not whole.
func (c *changes) note(path, why string) {
	c.report.Skipped++
	if len(c.report.Notes) < maxNotes {
		if len(path) > maxNoted {
			path = path[:maxNoted] + "..."
		}
		c.report.Notes = append(c.report.Notes, strconv.Quote(path)+": "+why) // a name may have any bytes
	}
}

// directory writes what has changed in a directory and below it.
func (c *changes) directory(d *dir) error {
	names, err := d.names()
	if err != nil {
		c.note(d.path, "the directory cannot be read: "+reason(err))
		return nil
	}
	d.readRules(c)
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		e, err := d.look(name)
		if err != nil {
			c.note(d.join(name), reason(err))
			continue
		}
		if e == nil { // it is gone again
			continue
		}
		if name == ".git" {
			err = c.git(e)
		} else {
			err = c.entry(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry writes an entry of the work tree.
func (c *changes) entry(e *entry) error {
	isTree := c.part != guest.PartGit
	switch {
	case e.isWhiteout():
		if isTree {
			return c.gone(e)
		}
		return nil
	case e.isMark():
		c.note(e.path, errMark.Error())
		return nil
	}
	ignored := e.dir.ignored || e.dir.rules.Match(e.path, e.isDir())
	if e.isDir() {
		if ignored && !e.baseIsDir() && !c.tracked.below(e.path) {
			return c.replaced(e)
		}
		return c.enter(e, ignored)
	}
	if !isTree {
		return nil
	}
	if ignored && (!e.hasBase || e.baseIsDir()) && !c.tracked.has(e.path) {
		return c.replaced(e)
	}
	return c.file(e)
}

// enter writes a directory of the work tree, with all below it. One that is ignored is sent only with something in
// it.
func (c *changes) enter(e *entry, ignored bool) error {
	d, err := e.enter()
	if err != nil {
		c.note(e.path, "the directory cannot be read: "+reason(err))
		return nil
	}
	defer d.close()
	d.ignored = ignored
	mode := e.baseIsDir() && (e.base.Mode^e.st.Mode)&0o7777 != 0
	opaque := e.baseIsDir() && d.hidden && !e.dir.hidden // the baseline's files in it are gone
	if c.part != guest.PartGit && (!e.baseIsDir() || mode || d.hidden) {
		d.header = header(e.path+"/", tar.TypeDir, &e.st)
	}
	if d.header != nil && (!ignored || opaque || mode) {
		if err := c.send(d); err != nil {
			return err
		}
	}
	if opaque && c.part != guest.PartGit {
		if err := c.mark(d, ".wh..wh..opq"); err != nil {
			return err
		}
	}
	if err := c.directory(d); err != nil {
		return err
	}
	if d.header != nil { // nothing of it was sent, so it is not there, but the baseline's file is not either
		return c.replaced(e)
	}
	return nil
}
