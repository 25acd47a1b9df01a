package workspace

import (
	"context"
	"crypto/sha1" // git's object names
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/ext4"
	"banger/internal/tree"
)

// image makes the file system of a baseline.
type image struct {
	writer   *ext4.Writer
	root     *ext4.Node
	uid, gid uint32
	format   string // of objects
}

// newImage begins a file system in a file, with room for some files of bytes in all.
func newImage(f *os.File, files int, bytes int64, uid, gid uint32, format string) (*image, error) {
	const page = 4 << 10
	size := bytes + int64(files)*2*page // a block that is not full, and a part of a directory
	size = max(ext4.MinSize, size+size/16+32<<20) / page * page
	w, err := ext4.New(f, ext4.Options{Size: size, Inodes: uint32(2*files + 1024), Label: "workspace", Time: time.Now()})
	if err != nil {
		return nil, fmt.Errorf("making the file system: %w", err)
	}
	i := &image{writer: w, uid: uid, gid: gid, format: format}
	i.root = i.newDirectory()
	return i, nil
}

func (i *image) newDirectory() *ext4.Node {
	return &ext4.Node{Mode: syscall.S_IFDIR | 0o755, UID: i.uid, GID: i.gid, Mtime: time.Now(),
		Children: map[string]*ext4.Node{}}
}

// directory returns the directory at a path, which it makes with all above it.
func (i *image) directory(path string) (*ext4.Node, error) {
	at := i.root
	if path == "." || path == "" {
		return at, nil
	}
	for part := range strings.SplitSeq(path, "/") {
		next, ok := at.Children[part]
		if !ok {
			next = i.newDirectory()
			at.Children[part] = next
		}
		if next.Children == nil {
			return nil, banger.Errorf(banger.CodeInvalid, "%s is a file and a directory", path).
				WithHint("the tree changed while it was read; repeat the command")
		}
		at = next
	}
	return at, nil
}

// put puts a node at a path.
func (i *image) put(path string, n *ext4.Node) error {
	dir, err := i.directory(filepath.Dir(path))
	if err != nil {
		return err
	}
	n.UID, n.GID = i.uid, i.gid
	dir.Children[filepath.Base(path)] = n
	return nil
}

// text puts a file with a content.
func (i *image) text(path, content string) error {
	return i.stream(path, 0o644, time.Now(), strings.NewReader(content))
}

func (i *image) stream(path string, mode uint32, changed time.Time, r io.Reader) error {
	data, err := i.writer.WriteData(r)
	if err != nil {
		return explainImage(path, err)
	}
	return i.put(path, &ext4.Node{Mode: syscall.S_IFREG | mode, Mtime: changed, Data: data})
}

// copy puts a file of the host.
func (i *image) copy(path, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return explainImage(from, err)
	}
	defer f.Close()
	return i.stream(path, 0o444, time.Now(), f)
}

// file puts a file of a working tree below top, whose content must be that of e.
func (i *image) file(top, path string, e tree.Entry) error {
	at := filepath.Join(top, path)
	st, err := os.Lstat(at)
	if err != nil {
		return explainImage(at, err)
	}
	sum := i.sum()
	if e.Mode == tree.ModeLink {
		target, err := os.Readlink(at)
		if err != nil || target == "" {
			return explainImage(at, errors.Join(err, errChanged))
		}
		fmt.Fprintf(sum, "blob %d\x00%s", len(target), target)
		if hex.EncodeToString(sum.Sum(nil)) != e.OID {
			return changedMeanwhile(at)
		}
		return i.linkAt(path, target, st.ModTime())
	}
	f, err := os.OpenFile(at, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return explainImage(at, err)
	}
	defer f.Close()
	fmt.Fprintf(sum, "blob %d\x00", st.Size())
	mode := uint32(st.Mode().Perm())
	if err := i.stream(path, mode|0o400, st.ModTime(), io.TeeReader(f, sum)); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != e.OID {
		return changedMeanwhile(at)
	}
	return nil
}

func (i *image) link(path, target string) error { return i.linkAt(path, target, time.Now()) }

func (i *image) linkAt(path, target string, changed time.Time) error {
	return i.put(path, &ext4.Node{Mode: syscall.S_IFLNK | 0o777, Mtime: changed, Target: target})
}

var errChanged = errors.New("it changed")

func changedMeanwhile(at string) error {
	return banger.Errorf(banger.CodeConflict, "%s changed while it was read", at).WithHint("repeat the command")
}

func (i *image) sum() hash.Hash {
	if i.format == "sha256" {
		return sha256.New()
	}
	return sha1.New()
}

func explainImage(path string, err error) error {
	var sick *banger.Error
	if errors.As(err, &sick) {
		return err
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ELOOP) || errors.Is(err, errChanged) {
		return changedMeanwhile(path)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return banger.Errorf(banger.CodeNoSpace, "the host's disk is full").WithHint("make room and repeat the command")
	}
	return banger.Errorf(banger.CodeDisk, "reading %s: %w", path, banger.Cause(err))
}

// repository puts a repository's own directory, which git has made and nothing of the user's configuration is in.
func (i *image) repository(ctx context.Context, s tree.Store, r *Record, index string) error {
	head, refs := r.Head+"\n", ""
	if r.Branch != "" {
		head = "ref: refs/heads/" + r.Branch + "\n"
		if r.Head != "" {
			refs = r.Head + " refs/heads/" + r.Branch + "\n"
		}
	}
	for path, content := range map[string]string{"HEAD": head, "packed-refs": refs, "config": guestConfig(r),
		"description": "a workspace of banger\n"} {
		if err := i.text(".git/"+path, content); err != nil {
			return err
		}
	}
	for _, dir := range []string{".git/refs/heads", ".git/refs/tags", ".git/objects/info", ".git/info", ".git/hooks"} {
		if _, err := i.directory(dir); err != nil {
			return err
		}
	}
	packs, _ := filepath.Glob(filepath.Join(s.Dir, "objects/pack/pack-*"))
	for _, path := range packs {
		if err := i.copy(".git/objects/pack/"+filepath.Base(path), path); err != nil {
			return err
		}
	}
	if err := i.optional(".git/shallow", filepath.Join(s.Dir, "shallow")); err != nil {
		return err
	}
	return i.optional(".git/index", index)
}

// optional puts a file of the host that may be missing, writable for its owner.
func (i *image) optional(path, from string) error {
	content, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explainImage(from, err)
	}
	return i.text(path, string(content))
}

// guestConfig returns the configuration of the guest's repository. The index has sizes and times of the host's files,
// which the guest's files have too, but not their inodes.
func guestConfig(r *Record) string {
	version, extension := 0, ""
	if r.Format == "sha256" {
		version, extension = 1, "[extensions]\n\tobjectFormat = sha256\n"
	}
	config := fmt.Sprintf("[core]\n\trepositoryformatversion = %d\n\tfilemode = true\n\tbare = false\n"+
		"\tlogallrefupdates = true\n\ttrustctime = false\n\tcheckStat = minimal\n%s", version, extension)
	if r.CRLF != "" {
		config += "[core]\n\tautocrlf = " + map[bool]string{true: "input", false: "true"}[r.CRLF == "input"] + "\n"
	}
	return config
}
