package command

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// userFiles writes a passwd and a group file of an image.
func userFiles(t *testing.T, passwd, group string) (string, string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
}

func TestLookUp(t *testing.T) {
	passwd, group := userFiles(t, `root:x:0:0:root:/root:/bin/sh
# a comment
app:x:1000:1001:An App:/srv/app:
1000:x:7:7::/seven:
broken:x:1:1:too few fields
toomany:x:1:1::/:/bin/sh:more
nouid:x:zero:0::/:
negative:x:-1:0::/:
huge:x:4294967296:0::/:
last:x:4294967294:5::/last:/bin/sh`, `root:x:0:
app:x:1001:
disk:x:6:root,app
docker:x:999:app
app2:x:1002:apple,xapp
badgid:x:many:app
tabs:x:3`)
	for spec, want := range map[string]User{
		"":               {0, 0, nil, "/root"},
		"root":           {0, 0, []uint32{6}, "/root"},
		"0":              {0, 0, []uint32{6}, "/root"},
		"app":            {1000, 1001, []uint32{6, 999}, "/srv/app"},
		"1000":           {1000, 1001, []uint32{6, 999}, "/srv/app"}, // the first line that fits
		"app:app":        {1000, 1001, nil, "/srv/app"},
		"app:docker":     {1000, 999, nil, "/srv/app"},
		"app:0":          {1000, 0, nil, "/srv/app"},
		"app:54321":      {1000, 54321, nil, "/srv/app"},
		":6":             {0, 6, nil, "/root"},
		"app:":           {1000, 1001, []uint32{6, 999}, "/srv/app"},
		"01000":          {1000, 1001, []uint32{6, 999}, "/srv/app"},
		"app:0999":       {1000, 999, nil, "/srv/app"},
		"app:tabs":       {1000, 3, nil, "/srv/app"}, // a line that lacks its members
		"broken":         {1, 1, nil, "/"},           // a line that lacks its home
		"2000":           {2000, 0, nil, "/"},
		"2000:app":       {2000, 1001, nil, "/"},
		"last":           {4294967294, 5, nil, "/last"}, // a line without its end
		"4294967295:100": {4294967295, 100, nil, "/"},
	} {
		if spec == "" {
			want.Groups = []uint32{6}
		}
		if got, err := lookUpIn(passwd, group, spec); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, %v", spec, got, err)
		}
	}
	for _, spec := range []string{"nobody", "toomany", "nouid", "negative", "huge", "#", "-1", "+1",
		"4294967296", "1e3",
		"app:nogroup", "app:badgid", "app:-1", "app:app:app", " app", "APP"} {
		if got, err := lookUpIn(passwd, group, spec); banger.CodeOf(err) != banger.CodeCannotRun {
			t.Errorf("%q is %+v, %v", spec, got, err)
		}
	}
}

// TestLookUpHostileFiles checks that with any content of an image's files a number can be used, and
// that everything else soon ends in an error.
func TestLookUpHostileFiles(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	for name, prepare := range map[string]func(string) error{
		"absent":      os.Remove,
		"empty":       func(p string) error { return os.Truncate(p, 0) },
		"a directory": func(p string) error { os.Remove(p); return os.Mkdir(p, 0o755) },
		"a pipe":      func(p string) error { os.Remove(p); return unix.Mkfifo(p, 0o644) },
		"a device":    func(p string) error { os.Remove(p); return os.Symlink("/dev/zero", p) },
		"a loop":      func(p string) error { os.Remove(p); return os.Symlink(p, p) },
		"huge":        func(p string) error { return os.Truncate(p, 1<<40) },
		"binary":      func(p string) error { return os.WriteFile(p, agenttest.Noise(1<<20), 0o644) },
		"colons":      func(p string) error { return os.WriteFile(p, []byte(strings.Repeat(":", 1<<20)), 0o644) },
		"a long line": func(p string) error { return os.WriteFile(p, []byte(long+":x:5:5:::\n"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			passwd, group := userFiles(t, "", "")
			for _, p := range []string{passwd, group} {
				if err := prepare(p); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan string, 1)
			go func() {
				id, err := lookUpIn(passwd, group, "12:34")
				_, err2 := lookUpIn(passwd, group, "name")
				done <- fmt.Sprint(id, err, banger.CodeOf(err2))
			}()
			select {
			case got := <-done:
				if want := fmt.Sprint(User{12, 34, nil, "/"}, nil, banger.CodeCannotRun); got != want {
					t.Errorf("got %s", got)
				}
			case <-time.After(processtest.Patience):
				t.Fatal("the look-up hangs")
			}
		})
	}
}

// TestLookUpLongLines checks that a line may be long: a group of thousands is found, and so is what
// follows it.
func TestLookUpLongLines(t *testing.T) {
	members := strings.Repeat("someone,", 20_000) + "app"
	passwd, group := userFiles(t, "app:x:1:1::/:\n", "many:x:50:"+members+"\nafter:x:51:app\n")
	if got, err := lookUpIn(passwd, group, "app"); err != nil || !reflect.DeepEqual(got.Groups, []uint32{50, 51}) {
		t.Errorf("app is in %v, %v", got.Groups, err)
	}
	if got, err := lookUpIn(passwd, group, "app:after"); err != nil || got.GID != 51 {
		t.Errorf("the group after a long line is %d, %v", got.GID, err)
	}
}
