package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"banger/internal/untrusted"
	"banger/internal/vmm"
	vmmjail "banger/internal/vmm/jail"
)

// Options of a jailed VM, all or none: the path of Firecracker's jailer, of its version; the
// directory below which it makes its jails, on the file system of the VM's files; the ids
// that the VMM gets; and the place of the caller's control group of version 2 in its
// hierarchy, "" for none. The caller is root.
const (
	OptionJailer = "jailer"
	OptionJails  = "jails"
	OptionUID    = "uid"
	OptionGID    = "gid"
	OptionGroup  = "cgroup"
)

// jail is the directory that is a VMM's root (docs/jailer.md).
type jail struct {
	jailer, base string
	uid, gid     int
	group        string
	program      string // Firecracker's, without symlinks: the jailer calls the jail after it
}

// readJail takes the options of a jail out of c; nil: it has none.
func readJail(c vmm.Config, program string) (*jail, error) {
	j := &jail{jailer: c.Options[OptionJailer], base: c.Options[OptionJails], group: c.Options[OptionGroup]}
	var err, gerr error
	if j.jailer == "" {
		return nil, nil
	}
	j.uid, err = strconv.Atoi(c.Options[OptionUID])
	j.gid, gerr = strconv.Atoi(c.Options[OptionGID])
	if err = errors.Join(err, gerr); err != nil || j.uid <= 0 || j.gid <= 0 || !filepath.IsAbs(j.base) {
		return nil, errors.Join(errors.New("a jail needs a directory, and the ids of a user who is not root"), err)
	}
	if c.Restore != "" {
		return nil, errors.New("a jailed VM cannot go on from a snapshot yet")
	}
	if j.program, err = exec.LookPath(program); err == nil {
		j.program, err = filepath.EvalSymlinks(j.program)
	}
	if err != nil {
		return nil, err
	}
	if path := filepath.Join(j.root(c.ID), apiSocket); len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path %s of a socket has %d bytes, and %d are possible: choose a shorter state directory",
			path, len(path), maxSocketPath)
	}
	return j, nil
}

// root is the directory of a VM.
func (j *jail) root(id string) string {
	return vmmjail.Base(j.base).Root(j.program, id)
}

// inside is c as the VMM sees it.
func (j *jail) inside(c vmm.Config) vmm.Config {
	c.Dir, c.Kernel, c.Initrd = "/", "/kernel", "/initrd"
	drives := make([]vmm.Drive, len(c.Drives))
	for i, d := range c.Drives {
		drives[i] = d
		drives[i].Path = "/" + d.Serial
	}
	c.Drives = drives
	return c
}

// make makes the directory with all files of c in it, by hard links, and returns it, open. The
// caller of the driver removes it when the VM has ended.
func (j *jail) make(c vmm.Config) (*os.File, error) {
	root := j.root(c.ID)
	if err := untrusted.RemoveAll(filepath.Dir(root)); err != nil { // of a VM that was killed
		return nil, err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, err
	}
	// The shim, which is the VMM's user then, finds sockets there, whatever the umask is.
	for _, dir := range []string{j.base, filepath.Join(j.base, filepath.Base(j.program)), filepath.Dir(root), root} {
		if err := os.Chmod(dir, 0o711); err != nil {
			return nil, err
		}
	}
	in := j.inside(c)
	files := map[string]string{in.Kernel: c.Kernel, in.Initrd: c.Initrd}
	for i, d := range c.Drives {
		files[in.Drives[i].Path] = d.Path
	}
	for name, path := range files {
		err := unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Join(root, name), unix.AT_SYMLINK_FOLLOW)
		if errors.Is(err, unix.EXDEV) {
			err = fmt.Errorf("it lies on another file system than %s: bring it here, as banger image promote does", j.base)
		}
		if err != nil {
			untrusted.RemoveAll(filepath.Dir(root))
			return nil, fmt.Errorf("linking %s into the jail: %w", path, err)
		}
	}
	return os.Open(root)
}

// own gives what we have made in the jail to the VMM's user.
func (j *jail) own(paths ...string) error {
	for _, p := range paths {
		if err := os.Lchown(p, j.uid, j.gid); err != nil {
			return err
		}
	}
	return nil
}

// arguments are those of the jailer, which ends in Firecracker with its own. The jailer
// gives Firecracker the id; the network namespace is its parent's. So is the control group,
// which is named all the same: told of version 2 alone, the jailer would join one that is
// called as the program, if somebody has made it.
func (j *jail) arguments(c vmm.Config, o options) []string {
	args := []string{"--id", c.ID, "--exec-file", j.program, "--uid", strconv.Itoa(j.uid), "--gid", strconv.Itoa(j.gid),
		"--chroot-base-dir", j.base}
	if j.group != "" {
		args = append(args, "--cgroup-version", "2", "--parent-cgroup", j.group)
	}
	return append(append(args, "--"), ownArguments("/", o)...)
}

// FindJailer returns the jailer of a Firecracker and its version: that of the same
// directory, else that in PATH; versionOf is JailerVersion, or who remembers its answer. An
// error says why it cannot be used for jails below base.
func FindJailer(firecracker, version, base string, versionOf func(path string) (string, error)) (string, error) {
	path := filepath.Join(filepath.Dir(firecracker), "jailer")
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("jailer"); err != nil {
			return "", errors.New("jailer is not installed")
		}
	}
	if err := checkJails(base); err != nil {
		return "", err
	}
	v, err := versionOf(path)
	if err == nil && v != version {
		err = fmt.Errorf("%s is of version %s, and Firecracker of %s", path, v, version)
	}
	return path, err
}

// JailerVersion asks a jailer for its version.
func JailerVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("running %s --version: %w", path, err)
	}
	v, err := parseVersion(string(out))
	return v.String(), err
}

// checkJails says why nothing below a directory, or where that will be, can be a VMM's root:
// its program and its devices are copies there.
func checkJails(base string) error {
	var st unix.Statfs_t
	err := unix.Statfs(base, &st)
	for ; errors.Is(err, unix.ENOENT) && base != "/"; err = unix.Statfs(base, &st) {
		base = filepath.Dir(base)
	}
	switch {
	case err != nil:
		return &os.PathError{Op: "statfs", Path: base, Err: err}
	case st.Flags&unix.ST_NODEV != 0:
		return fmt.Errorf("%s is mounted nodev", base)
	case st.Flags&unix.ST_NOEXEC != 0:
		return fmt.Errorf("%s is mounted noexec", base)
	}
	return nil
}
