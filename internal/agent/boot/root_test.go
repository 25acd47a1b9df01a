package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// hostileRoot returns an image whose links point out of it, next to a directory that
// must stay as it is.
func hostileRoot(t *testing.T) (root rootDir, outside string) {
	t.Helper()
	dir := t.TempDir()
	root, outside = rootDir(filepath.Join(dir, "root")), filepath.Join(dir, "outside")
	for _, d := range []string{string(root), outside, string(root) + "/real", string(root) + "/tree"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"absolute": outside, "relative": "../outside", "deep": "tree/../../../outside", "dangling": "/nowhere",
		"inside": "/real", "loop": "loop", "magic": "/proc/self/root" + outside,
		"tree/hosts": outside + "/hosts", "tree/hostname": "../../outside/hostname",
	} {
		if err := os.Symlink(target, filepath.Join(string(root), name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(outside); len(left) != 0 {
			t.Errorf("the image reached outside: %v", left)
		}
	})
	return root, outside
}

// TestMkdirStaysInRoot checks that directories are made within the root that an image's path leads
// to, or not at all.
func TestMkdirStaysInRoot(t *testing.T) {
	old := unix.Umask(0o077) // the mode asked for counts, not the umask
	defer unix.Umask(old)
	root, outside := hostileRoot(t)
	for name, want := range map[string]string{ // "" means an error
		"new":            "new",
		"a/b/c":          "a/b/c",
		"real/x":         "real/x",
		"inside/y":       "real/y",
		"../../up":       "up",
		"a/../../../o/z": "o/z",
		"loop/x":         "",
		"dangling":       "nowhere",                         // its target is made
		"magic/x":        "proc/self/root" + outside + "/x", // ordinary directories, as nothing is mounted there
	} {
		fd, err := root.mkdir(name, 0o1777)
		if err == nil {
			unix.Close(fd)
		}
		if want == "" {
			if err == nil {
				t.Errorf("%s was made", name)
			}
			continue
		}
		fi, serr := os.Lstat(filepath.Join(string(root), want))
		if err != nil || serr != nil || fi.Mode() != os.ModeDir|os.ModeSticky|0o777 {
			t.Errorf("%s: %v, %v, %v", name, err, serr, fi)
		}
	}
	for _, name := range []string{"absolute/x", "relative/x", "deep/x"} {
		if fd, err := root.mkdir(name, 0o755); err == nil { // inside, if anywhere
			unix.Close(fd)
		}
	}
}

// TestWriteFileStaysInRoot checks that a symlink in the place of a file is replaced and never
// followed.
func TestWriteFileStaysInRoot(t *testing.T) {
	root, _ := hostileRoot(t)
	for _, name := range []string{"tree/hosts", "tree/hostname", "tree/new", "etc/made/for/it", "real/.banger-x"} {
		for _, content := range []string{"one\n", "two\n"} {
			if err := root.writeFile(name, content); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			path := filepath.Join(string(root), name)
			fi, err := os.Lstat(path)
			got, _ := os.ReadFile(path)
			if err != nil || !fi.Mode().IsRegular() || !bytes.Equal(got, []byte(content)) {
				t.Errorf("%s holds %q, %v", name, got, err)
			}
		}
	}
	if err := root.writeFile("real", "x"); err == nil {
		t.Error("a directory was replaced by a file")
	}
	left, _ := filepath.Glob(string(root) + "/*/.banger-h*")
	if left2, _ := filepath.Glob(string(root) + "/.banger-*"); len(left)+len(left2) != 0 {
		t.Errorf("temporary files are left: %v %v", left, left2)
	}
}

func TestOpenStaysInRoot(t *testing.T) {
	root, outside := hostileRoot(t)
	secret := filepath.Join(filepath.Dir(outside), "secret")
	os.WriteFile(secret, []byte("s"), 0o644)
	for _, name := range []string{"../secret", "absolute/../secret", "relative/../secret", "/../../secret", secret,
		"magic/../secret"} {
		if fd, err := root.open(name, unix.O_RDONLY); err == nil {
			unix.Close(fd)
			t.Errorf("%s was opened", name)
		}
	}
	fd, err := root.open("inside", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if got, _ := os.Readlink(procPath(fd)); got != string(root)+"/real" {
		t.Errorf("a link within the root leads to %s", got)
	}
}

// TestResolvConf writes what the C library reads.
func TestResolvConf(t *testing.T) {
	for _, c := range []struct {
		n    guest.Network
		want string
	}{
		{guest.Network{DNS: []string{"10.0.2.3"}}, "nameserver 10.0.2.3\n"},
		{guest.Network{DNS: []string{"10.0.2.3"}, Search: []string{"vm", "corp.example"}},
			"nameserver 10.0.2.3\nsearch vm corp.example\n"},
	} {
		if got := resolvConf(c.n); got != c.want {
			t.Errorf("%+v is %q, not %q", c.n, got, c.want)
		}
	}
}
