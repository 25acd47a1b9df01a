package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// describe returns everything that a copy must keep of a tree, one line per entry. Names of one
// file have the same number.
func describe(t testing.TB, root string) string {
	t.Helper()
	var lines []string
	numbers := map[uint64]int{}
	must(t, filepath.Walk(root, func(at string, _ os.FileInfo, err error) error {
		must(t, err)
		rel, _ := filepath.Rel(root, at)
		var st unix.Stat_t
		must(t, unix.Lstat(at, &st))
		line := fmt.Sprintf("%q %o %d:%d %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(at)
			must(t, err)
			if len(data) > 64 {
				line += fmt.Sprintf(" %d bytes", len(data))
			} else {
				line += fmt.Sprintf(" %q", data)
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(at)
			must(t, err)
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if numbers[st.Ino] == 0 {
				numbers[st.Ino] = len(numbers) + 1
			}
			line += fmt.Sprintf(" link %d", numbers[st.Ino])
		}
		lines = append(lines, line+xattrsOf(t, at))
		return nil
	}))
	return strings.Join(lines, "\n")
}

func xattrsOf(t testing.TB, at string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(at, buf)
	if err != nil {
		return ""
	}
	var all []string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name != "" && name != "security.selinux" {
			value := make([]byte, 4096)
			n, err := unix.Lgetxattr(at, name, value)
			must(t, err)
			all = append(all, fmt.Sprintf(" %s=%q", name, value[:n]))
		}
	}
	sort.Strings(all)
	return strings.Join(all, "")
}

// everyKind makes a directory "tree" with entries of every kind. Some need root, and are made only
// if the test runs as root.
func everyKind(t testing.TB) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	in := func(name string) string { return filepath.Join(tree, name) }
	for _, d := range []string{"a/b/c", "empty", "shut"} {
		must(t, os.MkdirAll(in(d), 0o755))
	}
	long := strings.Repeat("n", 255)
	for name, data := range map[string]string{"a/file": "content", "a/b/empty": "", "shut/in": "x",
		"raw\xff\xfe\nbytes": "raw", long: "long",
		"a/b/c/" + strings.Repeat("l", 200): "deep", "=a=b": "equals", "ümläut": "u"} {
		must(t, os.WriteFile(in(name), []byte(data), 0o644))
	}
	must(t, os.WriteFile(in("big"), bytes.Repeat([]byte("0123456789abcdef"), 50_000), 0o600))
	must(t, os.Link(in("a/file"), in("a/b/again")))
	must(t, os.Link(in("a/file"), in("third")))
	for name, target := range map[string]string{
		"link":       "a/file",
		"dangling":   "../nowhere\xff",
		"a/absolute": "/etc/passwd",
		"toolong":    strings.Repeat("t/", 150),
	} {
		must(t, os.Symlink(target, in(name)))
	}
	must(t, os.Link(in("link"), in("a/samelink")))
	must(t, os.Chmod(in("a/b/empty"), 0o755|os.ModeSetuid|os.ModeSetgid))
	must(t, os.Chmod(in("empty"), 0o777|os.ModeSticky))
	unix.Setxattr(in("a/file"), "user.colour", []byte("blue\x00\n="), 0)
	unix.Setxattr(in("a"), "user.empty", nil, 0)
	if os.Geteuid() == 0 {
		must(t, unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(in("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 300_000))))
		must(t, unix.Mkfifo(in("pipe"), 0o640))
		must(t, os.Lchown(in("big"), 1234, 4_000_000_000))
		must(t, os.Lchown(in("dangling"), 3_000_000, 7))
		must(t, os.Chown(in("a/b/empty"), 33, 44))
		must(t, os.Chmod(in("a/b/empty"), 0o755|os.ModeSetuid|os.ModeSetgid))
		unix.Lsetxattr(in("link"), "trusted.on.link", []byte("1"), 0)
	}
	must(t, os.Chmod(in("shut"), 0o555))
	t.Cleanup(func() { os.Chmod(in("shut"), 0o755) })
	stamp := time.Unix(1_000_000_000, 123_456_789)
	filepath.Walk(tree, func(at string, _ os.FileInfo, _ error) error {
		stamp = stamp.Add(-100_000_001 * time.Second / 3)
		ts, _ := unix.TimeToTimespec(stamp)
		return unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
	return tree
}

// archived returns the tar of src.
func archived(t testing.TB, src string, o WriteOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := Write(context.Background(), &b, src, o)
	must(t, err)
	return b.Bytes()
}

// TestRoundTrip checks that a copy equals the original in everything that a file system stores.
func TestRoundTrip(t *testing.T) {
	tree := everyKind(t)
	dst := t.TempDir()
	data := archived(t, tree, WriteOptions{Name: "tree"})
	for _, foreign := range []bool{false, true} {
		to := filepath.Join(dst, fmt.Sprint(foreign))
		report, err := Extract(context.Background(), bytes.NewReader(data), to, ExtractOptions{
			Name:    "tree",
			Owners:  true,
			Special: true,
			Foreign: foreign,
			Rights:  true,
		})
		must(t, err)
		lost := report
		lost.Entries, lost.Bytes = 0, 0
		if got, want := describe(t, to), describe(t, tree); got != want || lost != (banger.CopyReport{}) {
			t.Errorf("lost %+v; got\n%s\nwant\n%s", lost, got, want)
		}
		must(t, os.Chmod(filepath.Join(to, "shut"), 0o755))
	}
}

// TestTheStandardLibraryReadsOurs checks that the standard library can read the tar.
func TestTheStandardLibraryReadsOurs(t *testing.T) {
	tree := everyKind(t)
	got := map[string]bool{}
	r := tar.NewReader(bytes.NewReader(archived(t, tree, WriteOptions{Name: "."})))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		got[filepath.Clean(h.Name)] = true
		var st unix.Stat_t
		at := filepath.Join(tree, h.Name)
		must(t, unix.Lstat(at, &st))
		if int(st.Uid) != h.Uid || int(st.Gid) != h.Gid || int64(st.Mode&0o7777) != h.Mode ||
			st.Mtim.Nano() != h.ModTime.UnixNano() {
			t.Errorf("%q is %+v", at, h)
		}
		if h.Typeflag == tar.TypeReg {
			want, err := os.ReadFile(at)
			must(t, err)
			if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, want) {
				t.Errorf("%q has %d bytes, %v", at, len(data), err)
			}
		}
	}
	if want := strings.Count(describe(t, tree), "\n") + 1; len(got) != want {
		t.Errorf("%d entries, not %d", len(got), want)
	}
}
