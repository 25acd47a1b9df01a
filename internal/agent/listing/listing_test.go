package listing

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestADirectoryIsListedByName has files of each kind, whose names need not be text.
func TestADirectoryIsListedByName(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(dir+"/b", []byte("five5"), 0o640))
	check(t, os.Mkdir(dir+"/c", 0o700))
	check(t, os.Symlink("b\xff", dir+"/a\xfe"))
	check(t, unix.Mkfifo(dir+"/d", 0o600))
	check(t, os.Symlink(dir, dir+"/c/up"))
	info, err := List(dir + "/c/up")
	check(t, err)
	var got []string
	for _, e := range info.Entries {
		got = append(got, fmt.Sprintf("%q %o %d %q", e.Name, e.Mode&unix.S_IFMT, e.Size*int64(e.Mode>>15&1), e.Target))
	}
	want := []string{`"a\xfe" 120000 2 "b\xff"`, `"b" 100000 5 ""`, `"c" 40000 0 ""`, `"d" 10000 0 ""`}
	if !slices.Equal(got, want) || info.More || info.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("the list is %q, more: %t", got, info.More)
	}
}

// TestALongListIsCutOff checks both bounds: of entries, and of bytes.
func TestALongListIsCutOff(t *testing.T) {
	for name, c := range map[string]struct{ entries, length, most int }{
		"many":       {maxEntries + 1, 5, maxEntries},
		"long names": {maxBytes/250 + 1, 250, maxBytes / 250},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for i := range c.entries {
				number := fmt.Sprint(i)
				check(t, os.WriteFile(filepath.Join(dir, strings.Repeat("x", c.length-len(number))+number), nil, 0o600))
			}
			info, err := List(dir)
			check(t, err)
			if !info.More || len(info.Entries) != c.most {
				t.Errorf("%d entries come of %d, more: %t", len(info.Entries), c.entries, info.More)
			}
		})
	}
}

// TestWhatCannotBeListed checks the errors.
func TestWhatCannotBeListed(t *testing.T) {
	dir := t.TempDir()
	check(t, os.WriteFile(dir+"/file", nil, 0o600))
	for path, code := range map[string]banger.Code{
		dir + "/none":            banger.CodeNotFound,
		dir + "/file/none":       banger.CodeNotFound,
		dir + "/file":            banger.CodeInvalid,
		strings.Repeat("x", 300): banger.CodeDenied,
	} {
		if _, err := List(path); banger.CodeOf(err) != code {
			t.Errorf("%.80s: %v", path, err)
		}
	}
	if info, err := List(t.TempDir()); err != nil || len(info.Entries) != 0 {
		t.Errorf("an empty directory: %v, %v", info, err)
	}
}
