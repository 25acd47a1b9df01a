// Command jailer stands for Firecracker's jailer in tests with the double. It takes the jailer's
// arguments and does what docs/jailer.md (1.16) says, in the same order. Before it changes the root
// directory, it binds this host's programs and libraries into the jail, in its own mount namespace
// only, because the double needs an emulator there and Firecracker needs nothing. It is a tool of
// tests, and shares no code with the driver that it tests.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var instanceID = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// arguments are the jailer's arguments that we know. Others are refused, as by the real jailer.
type arguments struct {
	id, program, base        string
	netns, cgroups, parent   string
	uid, gid                 uint64
	version, newPIDNamespace bool
	rest                     []string // for Firecracker
}

func main() {
	a, err := parse(os.Args[1:])
	if a.version {
		fmt.Printf("Jailer v%s\n", "1.16.1")
		return
	}
	if err == nil {
		runtime.LockOSThread()
		err = a.run(time.Now())
	}
	fmt.Fprintln(os.Stderr, "Jailer error:", err)
	os.Exit(1)
}

func parse(args []string) (a arguments, err error) {
	flags := flag.NewFlagSet("jailer", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&a.id, "id", "", "")
	flags.StringVar(&a.program, "exec-file", "", "")
	flags.Uint64Var(&a.uid, "uid", 1<<40, "")
	flags.Uint64Var(&a.gid, "gid", 1<<40, "")
	flags.StringVar(&a.base, "chroot-base-dir", "/srv/jailer", "")
	flags.StringVar(&a.netns, "netns", "", "")
	flags.StringVar(&a.cgroups, "cgroup-version", "1", "")
	flags.StringVar(&a.parent, "parent-cgroup", "", "")
	flags.BoolVar(&a.newPIDNamespace, "new-pid-ns", false, "")
	flags.BoolVar(&a.version, "version", false, "")
	if err := flags.Parse(args); err != nil || a.version {
		return a, err
	}
	a.rest = flags.Args()
	switch {
	case !instanceID.MatchString(a.id):
		return a, faultf("Invalid instance ID: %q", a.id)
	case a.uid > 1<<32-1 || a.gid > 1<<32-1:
		return a, faultf("Argument 'uid' or 'gid' required, but not found.")
	case filepath.IsAbs(a.parent) || strings.Contains(a.parent, ".."):
		return a, faultf("The parent cgroup path is invalid: %s", a.parent)
	case a.cgroups != "1" && a.cgroups != "2":
		return a, fmt.Errorf("%s is an invalid cgroup version specifier", a.cgroups)
	case a.newPIDNamespace || a.netns != "":
		return a, errors.New("the double has no --new-pid-ns and no --netns")
	}
	if a.program, err = filepath.EvalSymlinks(a.program); err != nil { // the name of the real file counts
		return a, faultf("Failed to canonicalize path %s: %w", a.program, err)
	}
	if info, err := os.Stat(a.program); err != nil || !info.Mode().IsRegular() {
		return a, faultf("%s is not a file", a.program)
	}
	if info, err := os.Stat(a.base); err != nil || !info.IsDir() {
		return a, fmt.Errorf("%s is not a directory", a.base)
	}
	return a, nil
}

// faultf returns an error. Its words are the jailer's.
func faultf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// run executes the program in the jail. It returns only errors.
func (a arguments) run(started time.Time) error {
	if os.Geteuid() != 0 {
		return errors.New("it is run as root")
	}
	if err := closeAll(); err != nil {
		return err
	}
	name := filepath.Base(a.program)
	root := filepath.Join(a.base, name, a.id, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if err := copyFile(a.program, filepath.Join(root, name)); err != nil {
		return err
	}
	limit := unix.Rlimit{Cur: 2048, Max: 2048}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if err := a.join(name); err != nil {
		return err
	}
	if err := enter(root); err != nil {
		return err
	}
	if err := a.devices(); err != nil {
		return err
	}
	if err := errors.Join(unix.Setgroups(nil), unix.Setgid(int(a.gid)), unix.Setuid(int(a.uid))); err != nil {
		return err
	}
	took := strconv.FormatInt(time.Since(started).Microseconds(), 10)
	argv := append([]string{"/" + name, "--id", a.id, "--start-time-us", took, "--start-time-cpu-us", took,
		"--parent-cpu-time-us", took}, a.rest...)
	return unix.Exec(argv[0], argv, []string{"PATH=/usr/bin"}) // PATH is for the emulator
}

// join moves this process into the parent group. If none is named, its name is that of the program:
// with version 2 and no values to set, the jailer joins that group if it exists.
func (a arguments) join(name string) error {
	if a.cgroups != "2" {
		return nil
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		parent := filepath.Join(f[1], a.parent)
		if a.parent == "" {
			parent = filepath.Join(f[1], name)
		}
		if _, err := os.Stat(parent); err != nil {
			return nil
		}
		return os.WriteFile(filepath.Join(parent, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	return faultf("cgroup hierarchy missing")
}

// closeAll closes the descriptors that the parent left open.
func closeAll() error {
	return unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// enter makes root the root directory of this process.
func enter(root string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	for _, dir := range []string{"/usr", "/lib", "/lib64", "/proc", "/sys"} { // for the emulator
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, filepath.Join(root, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("binding %s: %w", dir, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := os.Mkdir("old_root", 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "old_root"); err != nil {
		return faultf("Failed to pivot root: %w", err)
	}
	return errors.Join(os.Chdir("/"), unix.Unmount("old_root", unix.MNT_DETACH), os.Remove("old_root"), unix.Chroot("."))
}

// devices creates the devices that Firecracker opens, and makes its user the owner of the devices
// and the root.
func (a arguments) devices() error {
	for path, number := range map[string][2]uint32{
		"/dev/net/tun": {10, 200},
		"/dev/kvm":     {10, 232},
		"/dev/urandom": {1, 9},
		"/dev/null":    {1, 3},
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(number[0], number[1]))); err != nil {
			return faultf("Failed to create %s via mknod inside the jail: %w", path, err)
		}
		if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
			return err
		}
	}
	return os.Chown("/", int(a.uid), int(a.gid))
}
