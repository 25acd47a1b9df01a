// Package compare finds the files that differ between two trees. Each tree is an image with an upper directory of
// overlayfs on it (overlayfs.rst), or the image alone. It reads the directories themselves, and mounts nothing.
//
// The trees are hostile. No symlink is followed, nothing but files and directories is opened, and all is bounded. The
// package must not know whose trees they are, nor where the answer goes.
package compare

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"banger"
)

// Options say what is compared.
type Options struct {
	Image         string // directory of the image
	Before, After string // upper directories; "" means the image alone
	Patch         bool   // also compare text by lines
	// Quiet reports whether a file is left out: one that was made for the VM and is no change of its own. Paths have no
	// slash at the beginning. A directory that is left out is compared all the same below it.
	Quiet func(path string) bool
	Limits
}

// Limits bound a comparison. A zero value means the default.
type Limits struct {
	Entries int   // files that are looked at
	Names   int   // bytes of the names in one directory of both trees
	Depth   int   // directories above a file
	Text    int64 // bytes of a file whose lines are compared
	Lines   int   // of such a file
}

// defaults are the limits of a comparison. A comparison of the lines of two files takes about 800 bytes for each line.
var defaults = Limits{Entries: 4 << 20, Names: 16 << 20, Depth: 256, Text: 1 << 20, Lines: 64 << 10}

// or returns l with the values of d where it has none.
func (l Limits) or(d Limits) Limits {
	for _, f := range []struct{ at, other *int }{{&l.Entries, &d.Entries}, {&l.Names, &d.Names}, {&l.Depth, &d.Depth},
		{&l.Lines, &d.Lines}} {
		if *f.at == 0 {
			*f.at = *f.other
		}
	}
	if l.Text == 0 {
		l.Text = d.Text
	}
	return l
}

// walker compares two trees.
type walker struct {
	ctx     context.Context
	o       Options
	emit    func(banger.FileChange) error
	entries int
	chunks  [2][]byte // for content
}

// Trees calls emit for each file that differs, in the order of the paths. What cannot be compared is a change with a
// note. Trees returns the error of emit or ctx, or one that says which limit was exceeded.
func Trees(ctx context.Context, o Options, emit func(banger.FileChange) error) error {
	o.Limits = o.Limits.or(defaults)
	if o.Quiet == nil {
		o.Quiet = func(string) bool { return false }
	}
	w := &walker{ctx: ctx, o: o, emit: emit}
	before, err := openTree(o.Image, o.Before)
	if err != nil {
		return err
	}
	defer before.close()
	after, err := openTree(o.Image, o.After)
	if err != nil {
		return err
	}
	defer after.close()
	b, err := before.self()
	if err != nil {
		return err
	}
	a, err := after.self()
	if err != nil {
		return err
	}
	if err := w.file("", b, a); err != nil {
		return err
	}
	return w.directory("", before, after, 0)
}

// directory compares what is in a directory of both trees. One of them may be nil: the directory is not there then.
func (w *walker) directory(path string, before, after *dir, depth int) error {
	if depth > w.o.Depth {
		return w.note(path+"/", "it has too many directories above it")
	}
	names, err := w.names(before, after)
	if err != nil {
		return w.note(path+"/", reason(err))
	}
	for _, name := range names {
		if err := w.entry(join(path, name), name, before, after, depth); err != nil {
			return err
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// names returns the names that may differ, sorted: those in the upper directories, and those of the image where only
// one of the trees shows them.
func (w *walker) names(before, after *dir) ([]string, error) {
	left := w.o.Names
	var all []string
	add := func(fd int) error {
		list, err := namesIn(fd, &left)
		all = append(all, list...)
		return err
	}
	shared := before != nil && after != nil && before.lower >= 0 && after.lower >= 0
	for _, d := range []*dir{before, after} {
		if d == nil {
			continue
		}
		if d.upper >= 0 {
			if err := add(d.upper); err != nil {
				return nil, err
			}
		}
		if d.lower >= 0 && !shared {
			if err := add(d.lower); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// entry compares a name of a directory.
func (w *walker) entry(path, name string, before, after *dir, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.entries++; w.entries > w.o.Entries {
		return banger.Errorf(banger.CodeGuest, "the trees differ in too many files: more than %d were looked at",
			w.o.Entries).WithHint("remove what need not be compared, such as caches and builds")
	}
	b, err := before.look(name)
	if err != nil {
		return w.note(path, reason(err))
	}
	a, err := after.look(name)
	if err != nil {
		return w.note(path, reason(err))
	}
	if b == nil && a == nil || b.ofImage() && a.ofImage() {
		return nil
	}
	if !w.o.Quiet(path) {
		if err := w.file(path, b, a); err != nil {
			return err
		}
	}
	if !b.isDir() && !a.isDir() {
		return nil
	}
	nextBefore, err := b.enter()
	if err != nil {
		return w.note(path+"/", reason(err))
	}
	defer nextBefore.close()
	nextAfter, err := a.enter()
	if err != nil {
		return w.note(path+"/", reason(err))
	}
	defer nextAfter.close()
	return w.directory(path, nextBefore, nextAfter, depth+1)
}

// file compares a file of both trees, and reports a difference. One of them may be nil.
func (w *walker) file(path string, b, a *entry) error {
	c := banger.FileChange{Change: banger.FileChanged}
	c.Path, c.RawPath = named("/" + path)
	err := w.fill(&c, b, a)
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if err != nil {
		return w.note(path, reason(err))
	}
	if c.Change == banger.FileChanged && len(c.Differs) == 0 {
		return nil
	}
	return w.emit(c)
}

// fill writes into c what differs.
func (w *walker) fill(c *banger.FileChange, b, a *entry) (err error) {
	if b != nil {
		if c.Before, err = b.state(); err != nil {
			return err
		}
	}
	if a != nil {
		if c.After, err = a.state(); err != nil {
			return err
		}
	}
	switch {
	case b == nil:
		c.Change = banger.FileAdded
		return w.text(c, b, a)
	case a == nil:
		c.Change = banger.FileRemoved
		return w.text(c, b, a)
	}
	if b.kind() != a.kind() {
		c.Differs = append(c.Differs, banger.DiffersType)
		if err := w.text(c, b, a); err != nil {
			return err
		}
	} else if err := w.content(c, b, a); err != nil {
		return err
	}
	if (b.st.Mode^a.st.Mode)&0o7777 != 0 && b.kind() != unix.S_IFLNK {
		c.Differs = append(c.Differs, banger.DiffersMode)
	}
	if b.st.Uid != a.st.Uid || b.st.Gid != a.st.Gid {
		c.Differs = append(c.Differs, banger.DiffersOwner)
	}
	same, err := sameXattrs(b, a)
	if err == nil && !same {
		c.Differs = append(c.Differs, banger.DiffersXattrs)
	}
	return err
}

// content compares what two files of one kind hold.
func (w *walker) content(c *banger.FileChange, b, a *entry) error {
	switch b.kind() {
	case unix.S_IFREG:
		same, err := w.sameContent(b, a)
		if err != nil || same {
			return err
		}
		c.Differs = append(c.Differs, banger.DiffersContent)
		return w.text(c, b, a)
	case unix.S_IFLNK:
		if b.target != a.target {
			c.Differs = append(c.Differs, banger.DiffersTarget)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if b.st.Rdev != a.st.Rdev {
			c.Differs = append(c.Differs, banger.DiffersDevice)
		}
	}
	return nil
}

// note reports that something could not be compared. A slash at the end of path stands for what is below it.
func (w *walker) note(path, why string) error {
	c := banger.FileChange{Change: banger.FileChanged, Note: why}
	c.Path, c.RawPath = named("/" + path)
	return w.emit(c)
}

// named returns a name as UTF-8, and its bytes if it is not.
func named(name string) (shown string, raw []byte) {
	if utf8.ValidString(name) {
		return name, nil
	}
	return strings.ToValidUTF8(name, "\ufffd"), []byte(name)
}
