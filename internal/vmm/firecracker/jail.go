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

// Options of a jailed VM; either all are set or none. They are: the path of Firecracker's jailer,
// of the same version; the directory below which the jailer makes its jails, on the file system of
// the VM's files; the user and group ids of the VMM; and the caller's control group of version 2,
// as its place in the hierarchy, or "". The caller must be root.
const (
	OptionJailer = "jailer"
	OptionJails  = "jails"
	OptionUID    = "uid"
	OptionGID    = "gid"
	OptionGroup  = "cgroup"
)

// jail is the directory that is a VMM's root directory (docs/jailer.md).
type jail struct {
	jailer, base string
	uid, gid     int
	group        string
	program      string // Firecracker's path without symlinks: the jailer names the jail after it
}

// readJail reads the options of a jail from c. It returns nil if c has no jail.
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

// root returns the root directory of a VM.
func (j *jail) root(id string) string {
	return vmmjail.Base(j.base).Root(j.program, id)
}

// inside returns c with the paths that the VMM sees in the jail.
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

// make creates the jail's directory with hard links to all files of c, and returns the open
// directory. The driver's caller removes the directory when the VM has ended.
func (j *jail) make(c vmm.Config) (*os.File, error) {
	root := j.root(c.ID)
	if err := untrusted.RemoveAll(filepath.Dir(root)); err != nil { // of a VM that was killed
		return nil, err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, err
	}
	// The shim runs as the VMM's user and must reach the sockets in the jail, whatever the umask is.
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
	var ours []string
	if c.Save != "" {
		for _, path := range saveFiles(c) {
			name := "/" + filepath.Base(path)
			files[name], ours = path, append(ours, filepath.Join(root, name))
		}
	}
	if c.From != nil { // any user may read them
		state, memory := sharedNames(c, j, 0)
		files[state] = fmt.Sprintf("/proc/self/fd/%d", c.From.State.Fd())
		files[memory] = fmt.Sprintf("/proc/self/fd/%d", c.From.Memory.Fd())
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
	if err := j.own(ours...); err != nil {
		untrusted.RemoveAll(filepath.Dir(root))
		return nil, err
	}
	return os.Open(root)
}

// own makes the VMM's user the owner of what we have made in the jail.
func (j *jail) own(paths ...string) error {
	for _, p := range paths {
		if err := os.Lchown(p, j.uid, j.gid); err != nil {
			return err
		}
	}
	return nil
}

// arguments returns the arguments of the jailer, which executes Firecracker with its own arguments.
// The jailer passes the id to Firecracker. The network namespace and the control group are those of
// the parent. The group is named all the same: with version 2 and no name, the jailer would join a
// group with the program's name, if there is one.
func (j *jail) arguments(c vmm.Config, o options) []string {
	args := []string{"--id", c.ID, "--exec-file", j.program, "--uid", strconv.Itoa(j.uid), "--gid", strconv.Itoa(j.gid),
		"--chroot-base-dir", j.base}
	if j.group != "" {
		args = append(args, "--cgroup-version", "2", "--parent-cgroup", j.group)
	}
	return append(append(args, "--"), ownArguments("/", o)...)
}

// FindJailer returns the path of the jailer for a Firecracker: the one in the same directory, or
// else the one in PATH. versionOf is JailerVersion, or a function that caches its results. An error
// says why the jailer cannot be used for jails below base.
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

// JailerVersion returns the version that a jailer prints.
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

// checkJails returns an error if a directory below base, which need not exist yet, cannot be a
// VMM's root. Such a directory holds a program and device files.
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
