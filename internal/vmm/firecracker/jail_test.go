package firecracker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/vmm"
)

// jailed returns a VM of root, as the supervisor requests it.
func jailed() vmm.Config {
	c := plain()
	c.Options = map[string]string{
		OptionJailer: "/usr/bin/jailer",
		OptionJails:  "/var/lib/banger/jail",
		OptionUID:    "2000000001",
		OptionGID:    "2000000001",
		OptionGroup:  "banger-0a1b2c3d/0123456789ab",
	}
	return c
}

// TestRequestsOfAJailedBoot shows the arguments of the jailer, and the requests to Firecracker,
// whose root is the jail.
func TestRequestsOfAJailedBoot(t *testing.T) {
	c := jailed()
	j, err := readJail(c, "/bin/sh") // a program that is there
	if err != nil {
		t.Fatal(err)
	}
	j.program = "/usr/bin/firecracker"
	got := "in " + j.root(c.ID) + "\njailer " + strings.Join(j.arguments(c, options{pci: true}), " ") + "\n"
	for _, r := range bootRequests(j.inside(c), version{1, 16, 1}, options{pci: true}) {
		got += asText(t, r)
	}
	golden(t, "boot-jailed.txt", got)
	if j.group = ""; strings.Contains(strings.Join(j.arguments(c, options{}), " "), "cgroup") {
		t.Error("without a group the jailer is told of one")
	}
}

// TestAJailIsCalledAsTheProgramIs, and not as a link to it.
func TestAJailIsCalledAsTheProgramIs(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "firecracker-v1.16.1-x86_64"), filepath.Join(dir, "firecracker")
	if err := errors.Join(os.WriteFile(real, nil, 0o755), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	c := jailed()
	j, err := readJail(c, link)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/var/lib/banger/jail/firecracker-v1.16.1-x86_64/" + c.ID + "/root"; j.root(c.ID) != want {
		t.Errorf("it is in %s, not in %s", j.root(c.ID), want)
	}
}

func TestWhatIsNoJail(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*vmm.Config)
		err   string
	}{
		"root's":   {func(c *vmm.Config) { c.Options[OptionUID] = "0" }, "not root"},
		"nobody's": {func(c *vmm.Config) { delete(c.Options, OptionGID) }, "not root"},
		"nowhere":  {func(c *vmm.Config) { c.Options[OptionJails] = "jail" }, "needs a directory"},
		"with a long path": {func(c *vmm.Config) {
			c.Options[OptionJails] = "/" + strings.Repeat("x", 80)
		}, "choose a shorter state directory"},
		"without a program": {func(c *vmm.Config) {}, "executable file not found"},
	} {
		config, program := jailed(), "/bin/sh"
		c.spoil(&config)
		if name == "without a program" {
			program = "firecracker-nonesuch"
		}
		if _, err := readJail(config, program); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("a jail %s: %v, not an error with %q", name, err, c.err)
		}
	}
}

// TestAJailHoldsTheVMsFiles checks that a jail has hard links to the VM's files, and nothing of an
// earlier VM.
func TestAJailHoldsTheVMsFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := jailed()
	c.Kernel, c.Initrd, c.Drives = file("vmlinux"), file("initrd.cpio"), []vmm.Drive{{
		Serial:   "rootfs",
		Path:     file("rootfs.ext4"),
		ReadOnly: true,
	}, {Serial: "disk", Path: filepath.Join(dir, "link")}}
	if err := os.Symlink(file("disk.ext4"), c.Drives[1].Path); err != nil {
		t.Fatal(err)
	}
	j := &jail{base: filepath.Join(dir, "jail"), program: "/usr/bin/firecracker"}
	for range 2 { // the second time there is an old one
		root, err := j.make(c)
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, "jail/firecracker", c.ID, "root"); root.Name() != want {
			t.Errorf("it is in %s, not in %s", root.Name(), want)
		}
		for name, path := range map[string]string{
			"kernel": c.Kernel,
			"initrd": c.Initrd,
			"rootfs": c.Drives[0].Path,
			"disk":   filepath.Join(dir, "disk.ext4"),
		} {
			there, err := os.Stat(filepath.Join(root.Name(), name))
			if err != nil {
				t.Fatal(err)
			}
			if here, _ := os.Stat(path); !os.SameFile(here, there) {
				t.Errorf("%s is another file than %s", name, path)
			}
		}
		if err := os.WriteFile(filepath.Join(root.Name(), "left"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.Initrd += ".missing"
	if _, err := j.make(c); err == nil || !strings.Contains(err.Error(), "initrd.cpio.missing") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(j.base, "firecracker", c.ID)); !os.IsNotExist(err) {
		t.Errorf("a jail that failed is still there: %v", err)
	}
}

// TestFilesOfAnotherFileSystem cannot be in a jail.
func TestFilesOfAnotherFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("other", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("another file system needs root: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	c := jailed()
	c.Kernel, c.Initrd, c.Drives = "/etc/hostname", "/etc/hostname", nil
	_, err := (&jail{base: dir, program: "/usr/bin/firecracker"}).make(c)
	if err == nil || !strings.Contains(err.Error(), "another file system") {
		t.Errorf("the error is %v", err)
	}
}

func TestWhichJailer(t *testing.T) {
	dir := t.TempDir()
	program := func(path, says string) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\necho '%s'\n", says), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	beside := program("beside/jailer", "Jailer v1.16.1")
	program("path/jailer", "Jailer v1.16.1")
	program("old/jailer", "Jailer v1.13.0")
	program("odd/jailer", "hello")
	for name, c := range map[string]struct{ firecracker, path, want, err string }{
		"beside it":          {"beside/firecracker", "path", beside, ""},
		"in PATH":            {"elsewhere/firecracker", "path", filepath.Join(dir, "path/jailer"), ""},
		"none":               {"elsewhere/firecracker", "empty", "", "jailer is not installed"},
		"of another version": {"old/firecracker", "path", "", "is of version 1.13.0, and Firecracker of 1.16.1"},
		"none of ours":       {"odd/firecracker", "path", "", "names no version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", filepath.Join(dir, c.path)+":/bin")
			got, err := FindJailer(filepath.Join(dir, c.firecracker), "1.16.1", filepath.Join(dir, "state/jail"),
				func(path string) (string, error) { return JailerVersion(t.Context(), path) })
			if c.err == "" && (err != nil || got != c.want) || c.err != "" &&
				(err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("found %q, %v", got, err)
			}
		})
	}
}

// TestWhereNoJailCanBe: on some file systems a copied program or device does not work.
func TestWhereNoJailCanBe(t *testing.T) {
	dir := t.TempDir()
	for option, flag := range map[string]uintptr{"nodev": syscall.MS_NODEV, "noexec": syscall.MS_NOEXEC} {
		if err := syscall.Mount("small", dir, "tmpfs", flag, ""); err != nil {
			t.Skipf("a file system of its own needs root: %v", err)
		}
		err := checkJails(filepath.Join(dir, "state/jail"))
		if err == nil || !strings.Contains(err.Error(), "is mounted "+option) {
			t.Errorf("%s: %v", option, err)
		}
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
}
