package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
)

// withMode gives an entry a mode and extended attributes.
func withMode(h tar.Header, mode int64, xattrs ...string) tar.Header {
	h.Mode, h.PAXRecords = mode, map[string]string{}
	for i := 0; i < len(xattrs); i += 2 {
		h.PAXRecords["SCHILY.xattr."+xattrs[i]] = xattrs[i+1]
	}
	return h
}

// Capabilities and a default ACL in the kernel's form (capability.h, posix_acl_xattr.h).
const (
	netRaw  = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	openACL = "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff" +
		"\x04\x00\x07\x00\xff\xff\xff\xff\x20\x00\x07\x00\xff\xff\xff\xff"
)

// TestRightsAreKeptOnlyWhenAskedFor extracts attributes that grant rights. Without Rights they are
// left out and counted, one for each file.
func TestRightsAreKeptOnlyWhenAskedFor(t *testing.T) {
	entries := tarOf(dir("t"), withMode(file("t/setuid"), 0o4755), withMode(file("t/setgid"), 0o2755),
		withMode(dir("t/group"), 0o2777),
		withMode(dir("t/sticky"), 0o1777),
		withMode(file("t/capable"), 0o6755, "security.capability", netRaw, "user.kept", "v"),
		withMode(dir("t/acl"), 0o755, "system.posix_acl_default", openACL),
		withMode(file("t/trusted"), 0o644, "trusted.x", "v"))
	dst := onDisk(t)
	report, err := Extract(t.Context(), bytes.NewReader(entries), dst+"/without", ExtractOptions{})
	must(t, err)
	if report.Rights != 4 || report.Attributes != 2 {
		t.Errorf("lost is %+v", report)
	}
	for name, want := range map[string]string{"setuid": "755", "setgid": "755", "group": "777", "sticky": "1777",
		"capable": `755 user.kept="v"`,
		"acl":     "755", "trusted": "644"} {
		if got := rightsOf(t, dst+"/without/"+name); got != want {
			t.Errorf("%s is %s, not %s", name, got, want)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	report, err = Extract(t.Context(), bytes.NewReader(entries), dst+"/with", ExtractOptions{Owners: true, Rights: true})
	must(t, err)
	if got := rightsOf(t, dst+"/with/capable"); report.Attributes+report.Rights > 0 ||
		!strings.HasPrefix(got, "6755 security.capability=") {
		t.Errorf("it is %s, and lost is %+v", got, report)
	}
}

func rightsOf(t *testing.T, at string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(at, &st))
	return fmt.Sprintf("%o%s", st.Mode&0o7777, xattrsOf(t, at))
}

// TestAFileArrivesAsOneOrNotAtAll makes a hostile agent answer with something else than the
// requested file. Nothing is left, and an existing file stays.
func TestAFileArrivesAsOneOrNotAtAll(t *testing.T) {
	node := tar.Header{Typeflag: tar.TypeChar, Name: "want", Devmajor: 1, Devminor: 3}
	for name, c := range map[string]struct {
		data  []byte
		after io.Reader // what comes behind data
		words string
	}{
		"directory": {tarOf(dir("want"), file("want/f")), nil, "is a directory, but a file was asked for"},
		"symlink":   {tarOf(symlink("want", "/etc/passwd")), nil, "is a symlink, but a file was asked for"},
		"device":    {tarOf(node), nil, "is a device node, but a file was asked for"},
		"fifo": {tarOf(tar.Header{Typeflag: tar.TypeFifo, Name: "want"}), nil,
			"is a fifo, but a file was asked for"},
		"hard link":           {tarOf(hardLink("want", "want")), nil, "is a hard link, but a file was asked for"},
		"another name":        {tarOf(file("other")), nil, "not what was asked for"},
		"two files":           {tarOf(file("want"), file("want")), nil, "to come alone"},
		"a file below it":     {tarOf(file("want"), file("want/in")), nil, "to come alone"},
		"a symlink behind it": {tarOf(file("want"), symlink("want", "/etc/passwd")), nil, "to come alone"},
		"nothing":             {make([]byte, 1024), nil, "empty"},
		"no end":              {tarOf(file("want"))[:1024], nil, "its end is missing"},
		"an error at the end": {tarOf(file("want")), failing{errors.New("broken")}, "broken"},
		"endless zeros":       {tarOf(file("want")), zeros{}, "continues after its end"},
	} {
		for _, there := range []string{"", "old"} {
			base := t.TempDir()
			if there != "" {
				must(t, os.WriteFile(base+"/x", []byte(there), 0o600))
			}
			in := io.Reader(bytes.NewReader(c.data))
			if c.after != nil {
				in = io.MultiReader(in, c.after)
			}
			_, err := Extract(t.Context(), in, base+"/x", ExtractOptions{
				Name:    "want",
				Kind:    unix.S_IFREG,
				Special: true,
				Rights:  true,
			})
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s: the error is %v, not a sentence with %q", name, err, c.words)
			}
			if n := len(entriesOf(t, base)); n != min(len(there), 1) {
				t.Errorf("%s: there are %d files: %s", name, n, describe(t, base))
			}
			if data, _ := os.ReadFile(base + "/x"); string(data) != there {
				t.Errorf("%s: the file holds %q", name, data)
			}
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func entriesOf(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	return list
}

// hostileTree returns a tree that is cut off, deeper than the limit of descriptors, and whose
// directories only root may enter or change.
func hostileTree() []byte {
	entries := []tar.Header{withMode(dir("t"), 0), withMode(dir("t/shut"), 0), file("t/shut/f"), dir("t/read")}
	for i := range 600 {
		entries = append(entries, file(fmt.Sprintf("t/read/%d", i)))
	}
	entries = append(entries, withMode(dir("t/read"), 0o500), symlink("t/link", "../kept"), dir("t/many"))
	for i := range 600 {
		entries = append(entries, withMode(dir(fmt.Sprintf("t/many/%d", i)), 0))
	}
	deep := "t"
	for range maxDepth - 10 {
		deep += "/d"
		entries = append(entries, withMode(dir(deep), 0o100))
	}
	b := tarOf(append(entries, file("t/last"))...)
	return b[:len(b)-1100]
}

// TestATreeThatFailsIsRemoved cuts a tree off. Everything that the extraction has made is removed,
// and nothing else.
func TestATreeThatFailsIsRemoved(t *testing.T) {
	for _, to := range []string{"", "/new"} { // into the directory as t, and beside all as new
		o := newOutside(t)
		before := describe(t, o.dst)
		_, err := Extract(t.Context(), bytes.NewReader(hostileTree()), o.dst+to, ExtractOptions{Name: "t"})
		if err == nil || strings.Contains(err.Error(), "incomplete") || !strings.Contains(err.Error(), "its end is missing") {
			t.Errorf("the error is %v", err)
		}
		o.check(t)
		if now := describe(t, o.dst); timeless(now) != timeless(before) {
			t.Errorf("there is now\n%s\nnot\n%s", now, before)
		}
	}
}

// timeless returns a description without the line of the directory itself, whose time changes.
func timeless(described string) string {
	_, rest, _ := strings.Cut(described, "\n")
	return rest
}

// TestATreeThatWasThereIsToldToBeIncomplete cuts off an archive that adds to the user's own
// directory.
func TestATreeThatWasThereIsToldToBeIncomplete(t *testing.T) {
	for name, c := range map[string]struct {
		entries []byte
		o       ExtractOptions
	}{
		"a tree into its like":       {tarOf(dir("full"), file("full/a"), file("full/b")), ExtractOptions{Name: "full"}},
		"content into the directory": {tarOf(dir("."), file("a"), file("b")), ExtractOptions{Name: "."}},
		"any entries":                {tarOf(file("a"), file("b")), ExtractOptions{Into: true}},
	} {
		o := newOutside(t)
		_, err := Extract(t.Context(), bytes.NewReader(c.entries[:len(c.entries)-1500]), o.dst, c.o)
		want := fmt.Sprintf("; the copy is incomplete, and what came of it is left in %q", o.dst)
		if err == nil || !strings.Contains(err.Error(), want) || banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: the error is %v, not with %q", name, err, want)
		}
		for _, kept := range []string{"mine", "full/file"} {
			if _, err := os.Stat(filepath.Join(o.dst, kept)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		o.check(t)
	}
}

// TestACanceledCopySaysWhatIsLeft ends the context in the middle.
func TestACanceledCopySaysWhatIsLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		data := tarOf(file("a"), file("b"))
		w.Write(data[:1024])
		w.Write(data[1024:1100]) // read only after the first file was written
		cancel()
		w.CloseWithError(errors.New("closed"))
	}()
	_, err := Extract(ctx, r, t.TempDir(), ExtractOptions{Into: true})
	if banger.CodeOf(err) != banger.CodeCanceled || !strings.Contains(err.Error(), "the copy is incomplete") {
		t.Errorf("the error is %v", err)
	}
}

// TestAnArchiveIsBounded extracts an archive without an end. It ends at the limit of entries, or
// when the file system would have too little space.
func TestAnArchiveIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		fs    unix.Statfs_t
		entry tar.Header
		words string
		most  int64 // bytes written
	}{
		"bytes of a large disk": {unix.Statfs_t{Bsize: 4096, Blocks: 1 << 28, Bavail: 1<<18 - 1}, file("f"),
			"leave less than 1 GiB", 2 << 10},
		"bytes of a small disk": {unix.Statfs_t{Bsize: 4096, Blocks: 20 << 10, Bavail: 1<<10 - 1}, file("f"),
			"leave less than 4 MiB", 2 << 10},
		"inodes": {unix.Statfs_t{
			Bsize:  4096,
			Blocks: 1 << 28,
			Bavail: 1 << 28,
			Files:  1 << 20,
			Ffree:  100,
		}, file("f"), "fewer than 52428 files", 2 << 10},
		"attributes": {unix.Statfs_t{Bsize: 4096, Blocks: 1 << 28},
			withMode(file("f"), 0o644, "user.x", strings.Repeat("x", 60<<10)), "leave less than", 100 << 10},
	} {
		dst := t.TempDir()
		x := newExtractor(t.Context(), &endless{one: c.entry}, ExtractOptions{Into: true, NoXattrs: true})
		x.room.written = roomStep - 100*entryWeight // most of the limit is used up
		x.room.statfs = func(_ int, st *unix.Statfs_t) error { *st = c.fs; return nil }
		err := x.extract(dst)
		x.close()
		if banger.CodeOf(err) != banger.CodeNoSpace || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: the error is %v, not with %q", name, err, c.words)
		}
		if x.report.Bytes > c.most {
			t.Errorf("%s: %d bytes were written", name, x.report.Bytes)
		}
	}
	x := newExtractor(t.Context(), &endless{one: file("f")}, ExtractOptions{Into: true})
	defer x.close()
	x.room.entries = maxEntries - 3
	err := x.extract(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "more than 10000000 entries") || x.report.Entries != 3 {
		t.Errorf("%d entries end with %v", x.report.Entries, err)
	}
}

// endless is an archive that repeats one entry for ever.
type endless struct {
	one   tar.Header
	entry []byte
	left  []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if e.entry == nil {
		whole := tarOf(e.one)
		e.entry = whole[:len(whole)-2*pax.BlockSize]
	}
	if len(e.left) == 0 {
		e.left = e.entry
	}
	n := copy(p, e.left)
	e.left = e.left[n:]
	return n, nil
}
