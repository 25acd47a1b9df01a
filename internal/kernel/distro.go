package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"banger"
	"banger/internal/proxy"
)

var imagePackageRE = regexp.MustCompile(`linux-image-[0-9][a-z0-9.+~-]*`)

// Pull fetches the distribution's cloud kernel with the ordinary apt client, as an ordinary user,
// and unpacks it. It installs nothing on the host. If that version is already installed, Pull
// returns the installed kernel.
func (s *Store) Pull(ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
	s.adding.Lock()
	defer s.adding.Unlock()
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return banger.Kernel{}, banger.Errorf(banger.CodeUnavailable, "no kernel can be fetched here: %s is not installed",
				tool).
				WithHint("use: banger kernel import --host, or --vmlinux FILE --modules DIR")
		}
	}
	tmp, err := os.MkdirTemp(s.dir, tmpPrefix+"*")
	if err != nil {
		return banger.Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	a := apt{dir: tmp}
	emit(banger.Event{Stage: "kernel", Text: "asking apt for the distribution's cloud kernel"})
	pkg, err := a.findKernel(ctx)
	if err != nil {
		return banger.Kernel{}, banger.Errorf(banger.CodeUnavailable, "apt knows no cloud kernel: %w", err).
			WithHint("run `apt-get update`, or use: banger kernel import --host")
	}
	name := "debian-" + strings.TrimPrefix(pkg, "linux-image-")
	if _, err := s.read(name); err == nil {
		return s.Get(name)
	}
	emit(banger.Event{Stage: "kernel", Text: "downloading " + pkg})
	tree, err := a.unpack(ctx, pkg)
	if err != nil {
		return banger.Kernel{}, banger.Errorf(banger.CodeUnavailable, "cannot fetch %s: %w", pkg, err)
	}
	image, modules, err := findInTree(tree)
	if err != nil {
		return banger.Kernel{}, banger.Errorf(banger.CodeUnavailable, "package %s is not what was expected: %w", pkg, err)
	}
	return s.importLocked(ctx, name, image, modules, "Debian package "+pkg, emit)
}

// apt runs the apt client. It first uses the host's package lists. If there are none, it keeps its
// own lists in dir.
type apt struct {
	dir  string
	opts []string
}

func (a *apt) findKernel(ctx context.Context) (string, error) {
	pkg, err := a.dependency(ctx)
	if err == nil || ctx.Err() != nil {
		return pkg, err
	}
	if err := a.privateLists(ctx); err != nil {
		return "", err
	}
	return a.dependency(ctx)
}

// dependency returns the package that the metapackage linux-image-cloud-ARCH depends on.
func (a *apt) dependency(ctx context.Context) (string, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "depends", "linux-image-cloud-"+debianArch())
	if err != nil {
		return "", err
	}
	if pkg := imagePackageRE.FindString(out); pkg != "" {
		return pkg, nil
	}
	return "", errors.New("linux-image-cloud-" + debianArch() + " depends on no kernel")
}

func (a *apt) privateLists(ctx context.Context) error {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	a.opts = []string{
		"-o", "Dir::State=" + filepath.Join(a.dir, "state"),
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"),
		"-o", "Dir::State::status=/var/lib/dpkg/status",
	}
	_, err := a.run(ctx, a.dir, "apt-get", "update")
	return err
}

// unpack downloads pkg, unpacks it and returns the directory.
func (a *apt) unpack(ctx context.Context, pkg string) (string, error) {
	debs := filepath.Join(a.dir, "debs")
	tree := filepath.Join(a.dir, "tree")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return "", err
	}
	if _, err := a.run(ctx, debs, "apt-get", "-o", "APT::Sandbox::User=root", "download", pkg); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download left %d files", len(found))
	}
	_, err = a.run(ctx, debs, "dpkg-deb", "-x", found[0], tree)
	return tree, err
}

// run runs one command, in its own process group, which is killed when ctx ends. On failure the
// error is the last line that the command printed.
func (a *apt) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	if strings.HasPrefix(name, "apt") {
		args = append(append([]string{}, a.opts...), args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(proxy.Environ(banger.RegistryAccessOf(ctx), os.Environ()), "LC_ALL=C",
		"DEBIAN_FRONTEND=noninteractive")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s fails: %.300s", name, lines[len(lines)-1])
	}
	return stdout.String(), nil
}

// findInTree finds the kernel image and the module directory in an unpacked package. bookworm and
// trixie use /boot and /lib or /usr/lib; later suites put the image beside the modules.
func findInTree(tree string) (image, modules string, err error) {
	for _, p := range []string{"lib/modules/*", "usr/lib/modules/*"} {
		if m, _ := filepath.Glob(filepath.Join(tree, p)); len(m) == 1 {
			modules = m[0]
		}
	}
	for _, p := range []string{"boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz"} {
		if m, _ := filepath.Glob(filepath.Join(tree, p)); len(m) == 1 && image == "" {
			image = m[0]
		}
	}
	if image == "" || modules == "" {
		return "", "", errors.New("no vmlinuz or no modules in it")
	}
	return image, modules, nil
}
